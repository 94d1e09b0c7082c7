"""Tests of engine/cuda_graphs.py and of bfloat16, on a GPU."""

import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch

from kmnist_search.config import DataConfig, TrainConfig, TrialConfig, trial_config
from kmnist_search.data import search_data
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.backends import Backend
from kmnist_search.engine.cuda_graphs import STEPS_PER_GRAPH, GraphStepping
from kmnist_search.engine.stepping import EagerStepping
from kmnist_search.engine.training import Training

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that torch can use"),
]

GPU = torch.device("cuda")

SMALL: dict[str, Any] = {
    "patch_size": 7,
    "dim": 64,
    "token_width": 32,
    "channel_width": 128,
    "num_blocks": 2,
    "batch_size": 50,  # 23 steps an epoch of digits: two graphs of steps, and seven steps left over
    "learning_rate": 3e-3,
}

EVERYTHING_DRAWN: dict[str, Any] = {
    "dropout": 0.1,
    "drop_path": 0.2,
    "mixup": 0.4,
    "shift": 1.5,
    "rotate": 5.0,
    "elastic": 1.0,
    "cutout": 6,
    "ema_decay": 0.9,
}

BACKENDS: list[Backend] = ["torch", "triton"]


@pytest.fixture(scope="module")
def data() -> SearchData:
    return search_data.load(DataConfig(dataset="digits"), Path())


def config_of(epochs: int = 3, precision: str = "auto", **changes: Any) -> TrialConfig:
    train = TrainConfig.model_validate({"epochs": epochs, "precision": precision})
    return trial_config({**SMALL, **changes}, train)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("changes", [{}, EVERYTHING_DRAWN, {"optimizer": "sgd"}], ids=["little", "everything", "sgd"])
def test_replayed_steps_do_what_the_same_steps_do_uncaptured(
    data: SearchData, backend: Backend, changes: dict[str, Any]
) -> None:
    config = config_of(**changes)
    captured, uncaptured = (Training(config, data, seed=1, device=GPU, backend=backend) for _ in range(2))
    assert captured.steps_per_epoch % STEPS_PER_GRAPH
    assert isinstance(captured._runner._stepping, GraphStepping)
    uncaptured._runner._stepping = EagerStepping(uncaptured.program)
    for epoch, expected in zip(captured.epochs(), uncaptured.epochs(), strict=True):
        # The warm-up before a capture trains, and draws: were it not undone, this would differ at once.
        assert epoch.train_loss == pytest.approx(expected.train_loss, rel=1e-4)
        assert epoch.val_loss == pytest.approx(expected.val_loss, rel=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_waits_for_the_gpu_within_an_epoch(data: SearchData, backend: Backend) -> None:
    training = Training(config_of(epochs=2, **EVERYTHING_DRAWN), data, seed=1, device=GPU, backend=backend)
    while not training.advance():
        pass
    training.read()
    training.advance()  # an epoch begins with a copy of its rates
    torch.cuda.set_sync_debug_mode("error")
    try:
        while not training.advance():
            pass
    finally:
        torch.cuda.set_sync_debug_mode("default")
    training.read()


def test_a_new_architecture_is_set_up_within_a_second(data: SearchData) -> None:
    list(Training(config_of(epochs=1, dim=96, channel_width=192), data, seed=1, device=GPU).epochs())
    torch.cuda.synchronize()
    started = time.perf_counter()
    training = Training(config_of(epochs=1, dim=112, token_width=48, channel_width=224), data, seed=1, device=GPU)
    training.advance()
    torch.cuda.synchronize()
    assert time.perf_counter() - started < 1.0


@pytest.mark.slow
def test_triton_in_bfloat16_learns_as_torch_in_float32_within_the_spread_of_the_seeds(data: SearchData) -> None:
    def accuracies(backend: Backend, precision: str) -> list[float]:
        config = config_of(epochs=10, precision=precision, shift=1.0)
        trainings = [Training(config, data, seed=seed, device=GPU, backend=backend) for seed in range(3)]
        return [list(training.epochs())[-1].val_accuracy or 0.0 for training in trainings]

    exact, fused = accuracies("torch", "float32"), accuracies("triton", "bfloat16")
    spread = max(stdev(exact), stdev(fused), 0.005)
    assert abs(mean(exact) - mean(fused)) < 2 * spread
