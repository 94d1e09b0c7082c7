"""What is asked of one of two stand-in GPUs, which is not the current one and of another model."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kmnist_search.config import DataConfig, TrainConfig, trial_config
from kmnist_search.data import search_data
from kmnist_search.engine import cuda_graphs, verdict
from kmnist_search.engine.backends import uses_triton
from kmnist_search.engine.device import has_bfloat16
from kmnist_search.engine.self_check import problem
from kmnist_search.engine.training import Training
from kmnist_search.engine.verdict import check
from tests.support.stand_in_gpu import StandInGpu

FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)
CONFIG = trial_config(
    {"patch_size": 14, "dim": 8, "token_width": 4, "channel_width": 8, "num_blocks": 1, "batch_size": 128},
    TrainConfig(epochs=1, precision="float32"),
)


@pytest.fixture(autouse=True)
def gpus() -> Iterator[StandInGpu]:
    with StandInGpu(gpus=2) as gpus:
        gpus.old = {1}
        yield gpus


def test_bfloat16_is_that_of_the_gpu_asked_for() -> None:
    assert has_bfloat16(FIRST)
    assert not has_bfloat16(SECOND)


def test_the_verdict_is_that_on_the_gpu_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    says = "import json, sys; print(json.dumps({'problem': 'too old' if sys.argv[2] == 'cuda:1' else ''}))"
    monkeypatch.setattr(verdict, "COMMAND", (sys.executable, "-S", "-c", says))
    monkeypatch.setattr(verdict, "find_spec", lambda name: name)  # as where there is Triton
    monkeypatch.setattr(verdict, "version", lambda name: "3.8")
    verdict._known.clear()
    assert check(SECOND).kernels == "too old"
    assert not uses_triton(CONFIG, SECOND, "auto")
    assert uses_triton(CONFIG, FIRST, "auto")


def test_a_training_is_captured_on_the_gpu_asked_for(gpus: StandInGpu) -> None:
    gpus.old.clear()  # both have passed the self-check
    data = search_data.load(DataConfig(dataset="digits"), Path())
    assert len(list(Training(CONFIG, data, seed=0, device=SECOND, backend="torch").epochs())) == 1
    assert gpus.captures == 3


def test_the_self_check_works_on_the_gpu_asked_for(gpus: StandInGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "STEPS_PER_GRAPH", 1)
    shape = {"patch_size": 14, "dim": 12, "token_width": 6, "channel_width": 20, "num_blocks": 1, "batch_size": 4}
    assert problem("graphs", SECOND, {"tiny": shape}) == ""
    assert gpus.captures
