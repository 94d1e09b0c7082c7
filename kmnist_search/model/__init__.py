"""The nets: the PatchMLP, and nets that are written layer by layer."""

from typing import overload

import torch

from kmnist_search.config import ModelConfig, PatchMLPConfig
from kmnist_search.model.layered_mlp import LayeredMLP
from kmnist_search.model.patch_mlp import PatchMLP

Model = PatchMLP | LayeredMLP


@overload
def model_of(config: PatchMLPConfig) -> PatchMLP: ...
@overload
def model_of(config: ModelConfig) -> Model: ...
def model_of(config: ModelConfig) -> Model:
    """Return a model on the CPU with weights drawn by torch's global generator."""
    return PatchMLP(config) if isinstance(config, PatchMLPConfig) else LayeredMLP(config)


@overload
def build(config: PatchMLPConfig, seed: int) -> PatchMLP: ...
@overload
def build(config: ModelConfig, seed: int) -> Model: ...
def build(config: ModelConfig, seed: int) -> Model:
    """Return a model on the CPU whose weights depend only on `config` and `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_of(config)
