"""The estimate of what a training takes, against what one really keeps; and who may have how much of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st

from kmnist_search.config import DataConfig, TrainConfig, TrialConfig, trial_config
from kmnist_search.data import search_data
from kmnist_search.engine.memory_budget import MemoryBudget
from kmnist_search.engine.memory_estimate import GIB, memory_needed, saved_numbers
from kmnist_search.engine.program import EpochPlan
from kmnist_search.engine.torch_program import TorchProgram

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
BASE: dict[str, Any] = {
    "patch_size": 7,
    "dim": 32,
    "token_width": 48,
    "channel_width": 64,
    "num_blocks": 3,
    "batch_size": 64,
}
SIZES = {
    "dim": st.integers(1, 600),
    "token_width": st.integers(1, 300),
    "channel_width": st.integers(1, 1200),
    "num_blocks": st.integers(1, 12),
    "batch_size": st.integers(2, 1024),
}


def _config(**hyperparameters: Any) -> TrialConfig:
    return trial_config({**BASE, **hyperparameters}, TrainConfig(epochs=1, precision="float32"))


def _needed(config: TrialConfig, **sizes: Any) -> int:
    defaults = {"train_images": 50_000, "val_images": 10_000, "activation_bytes": 2, "on_gpu": True}
    return memory_needed(config, **{**defaults, **sizes})


@given(sizes=st.fixed_dictionaries(SIZES), name=st.sampled_from(sorted(SIZES)))
def test_whatever_grows_never_needs_less(sizes: dict[str, int], name: str) -> None:
    grown = {**sizes, name: min(2 * sizes[name], 64) if name == "num_blocks" else 2 * sizes[name]}
    assert _needed(_config(**sizes)) <= _needed(_config(**grown))


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"activation": "relu"}, {"activation": "gelu"}),
        ({"norm": "none"}, {"norm": "layer"}),
        ({"dropout": 0.0}, {"dropout": 0.1}),
        ({"ema_decay": 0.0}, {"ema_decay": 0.9}),
        ({"optimizer": "sgd", "momentum": 0.0}, {"optimizer": "sgd"}),
        ({"optimizer": "sgd"}, {"optimizer": "adamw"}),
    ],
)
def test_what_keeps_more_needs_more(less: dict[str, Any], more: dict[str, Any]) -> None:
    batch = {"batch_size": 4096}  # so large that a step takes more than the validation
    assert _needed(_config(**batch, **less)) < _needed(_config(**batch, **more))


def test_more_images_wider_numbers_and_graphs_need_more() -> None:
    config = _config()
    assert _needed(config) < _needed(config, train_images=60_000)
    assert _needed(config, val_images=100) < _needed(config, val_images=2000)
    assert _needed(config) < _needed(config, activation_bytes=4)
    assert _needed(config, on_gpu=False) < _needed(config)


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {},
        {"norm": "batch", "skip": False},
        {"norm": "none"},
        {"activation": "relu", "drop_path": 0.1},
        {"dropout": 0.1},
        {"activation": "relu", "dropout": 0.1},
        {"patch_size": 4, "token_width": [8, 64], "channel_width": [256, 16], "num_blocks": 2, "mixup": 0.4},
    ],
    ids=str,
)
def test_a_step_saves_for_its_backward_pass_what_the_estimate_says(
    hyperparameters: dict[str, Any], tmp_path: Path
) -> None:
    config = _config(**hyperparameters)
    data = search_data.load(DataConfig(dataset="digits"), tmp_path)
    program = TorchProgram(config, data, seed=0, device=CPU)
    order = torch.arange(len(data.train_images))
    program.begin([EpochPlan(order=order, rates=[0.0] * program.steps_per_epoch, first_step=0)])
    resident = {tensor.untyped_storage().data_ptr() for tensor in program.changed_by_steps()}
    saved: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        program.train_step()
    kept = sum(tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in resident)
    estimated = saved_numbers(config.model) * config.batch.batch_size * 4
    assert kept / 1.1 < estimated < kept * 1.1


def test_nobody_waits_for_room_when_nobody_holds_any() -> None:
    memory_budget = MemoryBudget(CPU)
    most = memory_budget.capacity()
    assert memory_budget.fits(10 * most)
    memory_budget.reserve(1, most // 2)
    assert not memory_budget.is_shared()
    assert memory_budget.fits(most // 10)
    assert not memory_budget.fits(most)
    memory_budget.reserve(2, most // 10)
    assert memory_budget.is_shared()
    memory_budget.release(1)
    memory_budget.release(2)
    memory_budget.release(2)
    assert memory_budget.fits(10 * most)


def test_what_is_too_much_is_said_in_round_numbers() -> None:
    memory_budget = MemoryBudget(CPU)
    assert memory_budget.excess_text(180 * GIB).startswith("needs about 180 GiB, this machine has free ")
    assert memory_budget.excess_text(3 * GIB // 2).startswith("needs about 1.5 GiB, ")
