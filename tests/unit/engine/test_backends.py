"""Tests of engine/backends.py and engine/device.py on a stand-in GPU: which backend computes, and how precisely."""

from pathlib import Path

import pytest
import torch

from kmnist_search.config import DataConfig, TrainConfig, trial_config
from kmnist_search.data import search_data
from kmnist_search.engine import verdict
from kmnist_search.engine.backends import HAS_TRITON
from kmnist_search.engine.device import has_bfloat16, is_lost
from kmnist_search.engine.memory_budget import MemoryBudget
from kmnist_search.engine.verdict import Verdict
from kmnist_search.errors import DeviceLostError
from tests.support.stand_in_gpu import StandInGpu


@pytest.mark.parametrize("has", [True, False])
def test_bfloat16_that_a_gpu_only_emulates_is_not_used(has: bool) -> None:
    with StandInGpu(bfloat16=has):
        assert has_bfloat16(torch.device("cuda", 0)) == has


@pytest.mark.skipif(not HAS_TRITON, reason="there is no Triton for this platform")
def test_autocast_needs_more_memory_than_the_kernels_by_what_its_norms_keep() -> None:
    data = search_data.load(DataConfig(dataset="digits"), Path())
    reference = {"patch_size": 4, "dim": 256, "token_width": 128, "channel_width": 512, "num_blocks": 4}
    config = trial_config({**reference, "batch_size": 256}, TrainConfig(epochs=1))
    with StandInGpu():
        budget = MemoryBudget(torch.device("cuda", 0))
        by_kernels = budget.estimate(config, data)
        verdict._known[verdict._name(torch.device("cuda", 0))] = Verdict(kernels="no C compiler", graphs="")
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
