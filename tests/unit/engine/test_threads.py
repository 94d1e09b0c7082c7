"""How many CPU threads a training gets, and how long an epoch is said to take."""

import os
import time
from pathlib import Path

import pytest
import torch

from kmnist_search.config import DataConfig, TrainConfig, TrialConfig, trial_config
from kmnist_search.data import search_data
from kmnist_search.engine.estimate import seconds_per_epoch
from kmnist_search.engine.threads import threads_for
from kmnist_search.engine.training import Training


def _config(**hyperparameters: object) -> TrialConfig:
    return trial_config(hyperparameters, TrainConfig(epochs=1))


def test_a_small_net_gets_one_thread_and_a_large_one_all_cores() -> None:
    assert threads_for(_config(dim=16, patch_size=14, batch_size=32)) == 1
    assert threads_for(_config(dim=512, num_blocks=12, batch_size=4096)) == len(os.sched_getaffinity(0))


def test_more_work_never_gets_fewer_threads() -> None:
    threads = [threads_for(_config(batch_size=2**power)) for power in range(3, 14)]
    assert threads == sorted(threads)


@pytest.mark.parametrize("batch_size", [64, 1197])  # many steps an epoch, and one
def test_the_estimate_of_an_epoch_is_about_what_it_takes(batch_size: int, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        config = _config(dim=64, patch_size=7, batch_size=batch_size)
        data = search_data.load(DataConfig(dataset="digits"), tmp_path)
        estimated = seconds_per_epoch(config, data, seconds=0.5)
        training = Training(config, data, seed=0, device=torch.device("cpu"))
        started = time.perf_counter()
        while not training.advance():
            pass
        taken = time.perf_counter() - started
        assert taken / 5 < estimated < taken * 5
    finally:
        torch.set_num_threads(before)
