"""Estimates how long an epoch takes on this CPU, by training for a moment."""

import time

import torch

from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.threads import threads_for
from kmnist_search.engine.training import Training


def seconds_per_epoch(config: TrialConfig, data: SearchData, *, seconds: float = 2.0) -> float:
    """Train `config` for about `seconds` (at least one step after the first) and return the seconds per epoch.

    The first step is not counted, because it includes the set-up.
    """
    torch.set_num_threads(threads_for(config))
    training = Training(config, data, seed=0, device=torch.device("cpu"))
    training.advance()
    if training.position == training.steps_per_epoch:  # the epoch has a single step: finish it
        while not training.advance():
            pass
        training.read()
    warm, started = training.step, time.perf_counter()
    while training.step == warm or time.perf_counter() - started < seconds:
        if training.advance():
            break
    return (time.perf_counter() - started) / (training.step - warm) * training.steps_per_epoch
