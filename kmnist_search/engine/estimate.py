"""How long an epoch takes on this CPU, by trying. Knows nothing of studies."""

import time

import torch

from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.threads import threads_for
from kmnist_search.engine.training import Training


def seconds_per_epoch(config: TrialConfig, data: SearchData, *, seconds: float = 2.0) -> float:
    """Train `config` for about `seconds` (at least one step after the first) and return what an epoch would take.

    The first step pays for what is set up once, so it is not counted.
    """
    torch.set_num_threads(threads_for(config))
    training = Training(config, data, seed=0, device=torch.device("cpu"))
    training.advance()
    if training.position == training.steps_per_epoch:  # that step was the epoch, but for its validation
        while not training.advance():
            pass
        training.read()
    warm, started = training.step, time.perf_counter()
    while training.step == warm or time.perf_counter() - started < seconds:
        if training.advance():
            break
    return (time.perf_counter() - started) / (training.step - warm) * training.steps_per_epoch
