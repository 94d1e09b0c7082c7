"""The choice of a backend, torch or Triton kernels, by configuration and device."""

import importlib.util
from collections.abc import Sequence
from typing import Literal

import torch

from kmnist_search.config import ModelConfig, PatchMLPConfig, TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.program import Program
from kmnist_search.engine.torch_program import TorchProgram
from kmnist_search.engine.verdict import verdict
from kmnist_search.errors import ConfigError

#: "auto" is "triton" where its kernels support the model and passed the self-check, else "torch".
Backend = Literal["auto", "torch", "triton"]

HAS_TRITON = importlib.util.find_spec("triton") is not None


def uses_triton(config: TrialConfig, device: torch.device, backend: Backend) -> bool:
    """Return whether steps are computed by Triton kernels. Only these compute several trainings together."""
    if backend == "auto":
        return device.type == "cuda" and _has_kernels(config.model) and not verdict(device).kernels
    return backend == "triton"


def _has_kernels(config: ModelConfig) -> bool:
    return isinstance(config, PatchMLPConfig) and config.norm != "batch"


def program_for(
    config: TrialConfig, datasets: Sequence[SearchData], *, seeds: Sequence[int], device: torch.device, backend: Backend
) -> Program:
    """Return a program for trainings that differ in their seeds and data; several of them need Triton.

    Raises:
        ConfigError: a batch is larger than the training part.
    """
    images = min(len(data.train_images) for data in datasets)
    if config.batch.batch_size > images:
        raise ConfigError(f"batch_size {config.batch.batch_size} is more than the {images:,} training images")
    # Images that several trainings share are copied to the device once.
    on_device = {id(data): data.to(device).resized(config.model.image_size) for data in datasets}
    datasets = [on_device[id(data)] for data in datasets]
    # Else cuBLAS may add up partial sums in bfloat16; the gradient of a weight sums over tens of thousands of rows.
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    if uses_triton(config, device, backend):
        from kmnist_search.engine.triton_program import TritonProgram  # needs Triton

        return TritonProgram(config, datasets, seeds=seeds, device=device)
    (data,), (seed,) = datasets, seeds
    return TorchProgram(config, data, seed=seed, device=device)
