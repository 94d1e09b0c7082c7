"""Trainings that are dropped leave nothing behind: no object, and no memory of the process."""

import gc
import weakref
from pathlib import Path

import psutil
import pytest
import torch

from kmnist_search.config import DataConfig, TrainConfig, trial_config
from kmnist_search.data import search_data
from kmnist_search.engine.training import Training

pytestmark = pytest.mark.usefixtures("one_thread")

TRAININGS = 200
#: The weights of each, with gradients, moments and moving average, are 1.9 MB.
DIM = 128


def test_two_hundred_dropped_trainings_leave_no_object_and_no_memory(tmp_path: Path) -> None:
    config = trial_config(
        {"patch_size": 14, "dim": DIM, "channel_width": 2 * DIM, "num_blocks": 1, "batch_size": 8, "ema_decay": 0.9},
        TrainConfig(epochs=1),
    )
    data = search_data.load(DataConfig(dataset="digits"), tmp_path)
    alive: weakref.WeakSet[object] = weakref.WeakSet()
    process = psutil.Process()
    resident = []
    gc.collect()
    gc.disable()  # nothing shall have to be collected
    try:
        for number in range(TRAININGS):
            training = Training(config, data, seed=number, device=torch.device("cpu"))
            training.advance()
            for part in (training, training.program, training.evaluated_model):
                alive.add(part)
            resident.append(process.memory_info().rss)
    finally:
        gc.enable()
    assert len(alive) == 3
    assert resident[-1] - resident[TRAININGS // 2] < 20 * 2**20
