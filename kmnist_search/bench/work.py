"""What is measured, as values that can be sent to the process that measures it: ours, and the loops beside it."""

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kmnist_search.bench import comparison
from kmnist_search.bench.stopwatch import Throughput, synchronise
from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.backends import Way
from kmnist_search.engine.training import POLL_SECONDS, Training

#: Share of the time to measure that is trained before: on a GPU, slices of an epoch find their size.
WARM_UP_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class OurTrainings:
    """So many of our trainings at once in one process, one step of each after the other; their pace is that of all."""

    config: TrialConfig
    trials: int
    device: torch.device
    threads: int
    seconds: float
    way: Way = "auto"

    def __call__(self, data: SearchData) -> Throughput:
        torch.set_num_threads(self.threads)
        synchronise(self.device)
        began = time.perf_counter()
        trainings = [
            Training(self.config, data, seed=seed, device=self.device, way=self.way) for seed in range(self.trials)
        ]
        _advance(trainings)
        synchronise(self.device)
        setup_seconds = (time.perf_counter() - began) / self.trials
        _images_per_second(trainings, self.device, self.seconds * WARM_UP_SHARE)
        return Throughput(
            images_per_second=_images_per_second(trainings, self.device, self.seconds), setup_seconds=setup_seconds
        )


def _advance(trainings: Sequence[Training]) -> bool:
    """Take each a little further; return whether some epoch was over."""
    are_over = [training.advance() for training in trainings]
    for training, is_over in zip(trainings, are_over, strict=True):
        if is_over:
            training.read()
    return any(are_over)


def _images_per_second(trainings: Sequence[Training], device: torch.device, seconds: float) -> float:
    synchronise(device)
    before, started = sum(training.images_trained for training in trainings), time.perf_counter()
    while True:
        if not _advance(trainings) and device.type == "cuda":
            time.sleep(POLL_SECONDS)
        if time.perf_counter() - started > seconds:
            break
    synchronise(device)
    images = sum(training.images_trained for training in trainings) - before
    return images / (time.perf_counter() - started)


@dataclass(frozen=True, kw_only=True)
class DataLoaderTraining:
    """A loop around a DataLoader, with so many processes to load."""

    config: TrialConfig
    device: torch.device
    seconds: float
    num_workers: int

    def __call__(self, data: SearchData) -> Throughput:
        loop = comparison.dataloader_loop()
        return loop(self.config, data, self.device, seconds=self.seconds, num_workers=self.num_workers)


@dataclass(frozen=True, kw_only=True)
class EagerTraining:
    """A loop over images on the device."""

    config: TrialConfig
    device: torch.device
    seconds: float

    def __call__(self, data: SearchData) -> Throughput:
        return comparison.eager_loop()(self.config, data, self.device, seconds=self.seconds)


@dataclass(frozen=True, kw_only=True)
class CompiledTraining:
    """The same loop with the model compiled."""

    config: TrialConfig
    device: torch.device
    seconds: float

    def __call__(self, data: SearchData) -> Throughput:
        return comparison.compiled_loop()(self.config, data, self.device, seconds=self.seconds)


Work = OurTrainings | DataLoaderTraining | EagerTraining | CompiledTraining


def clear_memory(device: torch.device) -> None:
    """Free what the last measurement had on a GPU, so that the next one sees it as it was."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
