"""The loops that ours is compared with. They lie where benchmarks do, and come with the package.

Each takes a configuration, images, a device and how long to measure, and returns its pace.
"""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Protocol

import torch

from kmnist_search.bench.stopwatch import Throughput
from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData


class Loop(Protocol):
    """A training loop as most people write it."""

    def __call__(
        self, config: TrialConfig, data: SearchData, device: torch.device, *, seconds: float
    ) -> Throughput: ...


class DataLoaderLoop(Protocol):
    """One that is fed by a DataLoader, with so many processes to load."""

    def __call__(
        self, config: TrialConfig, data: SearchData, device: torch.device, *, seconds: float, num_workers: int
    ) -> Throughput: ...


def dataloader_loop() -> DataLoaderLoop:
    loop: DataLoaderLoop = _loops().dataloader_loop
    return loop


def eager_loop() -> Loop:
    loop: Loop = _loops().eager_loop
    return loop


def compiled_loop() -> Loop:
    loop: Loop = _loops().compiled_loop
    return loop


def loops_file() -> Path:
    """Return the file of the loops: installed, it lies in the package; in a checkout with the other benchmarks."""
    package = Path(__file__).parent.parent
    places = (package / "benchmarks" / "loops.py", package.parent / "tests" / "benchmarks" / "loops.py")
    return next(path for path in places if path.is_file())


def _loops() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kmnist_search_benchmark_loops", loops_file())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
