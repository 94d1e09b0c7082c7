"""Runners of trainings, as the search runs them: on a GPU in this process, on a CPU in a process for each."""

import gc
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import Protocol

import torch

from kmnist_search.bench.images import images_in
from kmnist_search.bench.nets import WARM_UP
from kmnist_search.bench.pace import Pace, training_pace
from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.threads import threads_for
from kmnist_search.errors import MeasurementError
from kmnist_search.host.resources import usable_cores

#: Each process holds torch and the images, half a gigabyte.
MAX_PROCESSES = 16
GPU_TRIALS = (1, 2, 4, 8)
CPU = torch.device("cpu")


class Runner(Protocol):
    """Runs trainings of one configuration and measures their pace.

    Attributes:
        device: the device that trains.
        trials_at_once: the numbers of trainings at once that are worth trying, rising from 1.
    """

    device: torch.device
    trials_at_once: tuple[int, ...]

    def pace(self, config: TrialConfig, *, trials: int, seconds: float) -> Pace:
        """Return the pace of so many trainings together, measured for so many seconds.

        Raises:
            MeasurementError: they did not run.
        """


@contextmanager
def runner_for(device: torch.device, data: SearchData, data_dir: Path) -> Iterator[Runner]:
    """Yield the runner of a device; `data` are the images in `data_dir`, or noise."""
    if device.type == "cuda":
        yield GpuRunner(device, data.to(device))
    else:
        with cpu_runner(data_dir, cores=usable_cores()) as runner:
            yield runner


class GpuRunner:
    """Runs all trainings in this process, a step of each in turn."""

    def __init__(self, device: torch.device, data: SearchData) -> None:
        self.device, self.data = device, data
        self.trials_at_once: tuple[int, ...] = GPU_TRIALS
        self.pace(WARM_UP, trials=1, seconds=0.0)

    def pace(self, config: TrialConfig, *, trials: int, seconds: float) -> Pace:
        gc.collect()  # the memory of the measurement before
        torch.cuda.empty_cache()
        try:
            return training_pace(config, self.data, trials=trials, device=self.device, seconds=seconds)
        except Exception as error:  # a compiler, a driver or a library may fail in its own way
            raise MeasurementError(reason_of(error)) from error


class CpuRunner:
    """Runs each training in a process of `pool`, which has as many as there are trainings at most."""

    device = CPU

    def __init__(self, pool: ProcessPoolExecutor, *, processes: int, cores: int) -> None:
        self._pool, self._cores = pool, cores
        self.trials_at_once = (*(2**power for power in range(10) if 2**power < processes), processes)

    def pace(self, config: TrialConfig, *, trials: int, seconds: float) -> Pace:
        threads = max(1, min(threads_for(config), self._cores // trials))
        try:
            running = [self._pool.submit(_pace_in_process, config, threads, seconds) for _ in range(trials)]
            wait(running)
            paces = [future.result() for future in running]
        except BrokenProcessPool:
            raise MeasurementError("one of its processes was killed, perhaps for lack of memory") from None
        except Exception as error:  # a library may fail in its own way
            raise MeasurementError(reason_of(error)) from error
        return Pace(
            images_per_second=sum(pace.images_per_second for pace in paces),
            setup_seconds=max(pace.setup_seconds for pace in paces),
        )


@contextmanager
def cpu_runner(data_dir: Path, *, cores: int) -> Iterator[CpuRunner]:
    """Start a process for each core, wait until all are ready, and yield their runner."""
    processes = min(cores, MAX_PROCESSES)
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads in a broken state
    arguments = data_dir, context.Barrier(processes)
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_process, initargs=arguments)
    try:
        with _interrupts_ignored():
            started = [pool.submit(int) for _ in range(processes)]
        wait(started)
        yield CpuRunner(pool, processes=processes, cores=cores)
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown()


def reason_of(error: Exception) -> str:
    """Return an error on one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _begin_process(data_dir: Path, all_ready: Barrier) -> None:
    """Load the images and train once, so that no set-up pays for what a process does once; wait for the others."""
    global _data
    _data = images_in(data_dir).data
    _pace_in_process(WARM_UP, 1, 0.0)
    all_ready.wait()


def _pace_in_process(config: TrialConfig, threads: int, seconds: float) -> Pace:
    torch.set_num_threads(threads)
    return training_pace(config, _data, trials=1, device=CPU, seconds=seconds)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Start processes that Ctrl-C, which a terminal sends to all of them, does not reach: this process ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


#: The images of a process of the pool.
_data: SearchData
