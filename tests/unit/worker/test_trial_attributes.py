"""What is kept with a trial besides its metric."""

import pytest
import torch

from kmnist_search.worker.trial_attributes import reason_of_failure


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError("Unable to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:131] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_out_of_memory_is_said_as_such_whoever_ran_out_of_it(error: Exception) -> None:
    assert reason_of_failure(error) == f"out of memory: {type(error).__name__}: {error}"


def test_another_error_is_said_as_it_is() -> None:
    assert reason_of_failure(RuntimeError("CUDA error: device-side assert")) == (
        "RuntimeError: CUDA error: device-side assert"
    )
