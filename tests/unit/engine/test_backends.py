"""Tests of engine/backends.py and engine/device.py on a stand-in GPU: which backend computes, and how precisely."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kmnist_search.config import DataConfig, TrainConfig, trial_config
from kmnist_search.data import search_data
from kmnist_search.engine import backends
from kmnist_search.engine.backends import missing_kernels
from kmnist_search.engine.device import has_bfloat16, is_lost
from kmnist_search.engine.memory_budget import MemoryBudget
from kmnist_search.errors import DeviceLostError
from tests.support.stand_in_gpu import StandInGpu

activation = pytest.importorskip("kmnist_search.engine.kernels.activation", reason="there is no Triton here")

SECOND = torch.device("cuda", 1)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Nothing is remembered of a GPU that is gone."""
    backends._kernel_error.cache_clear()
    yield
    backends._kernel_error.cache_clear()


def test_the_kernels_are_tried_on_the_gpu_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def bias_act(h: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        tried.append((h.device, torch.cuda.current_device()))
        return h

    monkeypatch.setattr(activation, "bias_act", bias_act)
    with StandInGpu(gpus=2):
        assert missing_kernels(SECOND) == ""
        assert torch.cuda.current_device() == 0
    assert tried == [(SECOND, 1)]


def test_a_gpu_that_is_full_just_now_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Exception] = [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("no C compiler\nsee above")]

    def bias_act(*_: Any, **__: Any) -> torch.Tensor:
        raise errors.pop(0)

    monkeypatch.setattr(activation, "bias_act", bias_act)
    with StandInGpu(gpus=2):
        assert missing_kernels(SECOND) == ""
        assert missing_kernels(SECOND) == "RuntimeError: no C compiler"
        assert missing_kernels(SECOND) == "RuntimeError: no C compiler"  # remembered


@pytest.mark.parametrize("has", [True, False])
def test_bfloat16_that_a_gpu_only_emulates_is_not_used(has: bool) -> None:
    with StandInGpu(bfloat16=has):
        assert has_bfloat16(torch.device("cuda", 0)) == has
    assert not has_bfloat16(torch.device("cpu"))


def test_autocast_needs_more_memory_than_the_kernels_by_what_its_norms_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    data = search_data.load(DataConfig(dataset="digits"), Path())
    reference = {"patch_size": 4, "dim": 256, "token_width": 128, "channel_width": 512, "num_blocks": 4}
    config = trial_config({**reference, "batch_size": 256}, TrainConfig(epochs=1))
    with StandInGpu():
        budget = MemoryBudget(torch.device("cuda", 0))
        by_kernels = budget.estimate(config, data)
        monkeypatch.setattr(backends, "missing_kernels", lambda device: "no C compiler")
        assert 1.2 < budget.estimate(config, data) / by_kernels < 1.6


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"), True),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), True),
        (DeviceLostError("the capture of a CUDA graph failed"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), False),
        (torch.AcceleratorError("CUDA error: out of memory"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_only_errors_that_cuda_repeats_for_ever_cost_the_process_its_gpu(error: Exception, lost: bool) -> None:
    assert is_lost(error) == lost
