"""The runner of a bench: trains as the search does, on a GPU in this process, on a CPU in a process for each trial."""

import gc
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from threading import Barrier

import torch

from kmnist_search.bench.nets import WARM_UP, noise
from kmnist_search.bench.pace import Pace, training_pace
from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.threads import threads_for
from kmnist_search.errors import MeasurementError
from kmnist_search.host.resources import usable_cores
from kmnist_search.host.signals import blocked

#: Each process holds torch and the images, half a gigabyte.
MAX_PROCESSES = 16
GPU_TRIALS = (1, 2, 4, 8)
CPU = torch.device("cpu")


class Runner:
    """Runs trainings of one configuration and measures their pace.

    Attributes:
        device: the device that trains.
        trials_at_once: the numbers of trainings at once that are worth trying, rising from 1.
    """

    def __init__(
        self, device: torch.device, trials_at_once: tuple[int, ...], pool: ProcessPoolExecutor | None = None
    ) -> None:
        """`pool` has a process for each training; None trains all in this process, a step of each in turn."""
        self.device, self.trials_at_once, self._pool = device, trials_at_once, pool
        if pool is None:
            _begin(device)

    def pace(self, config: TrialConfig, *, trials: int, seconds: float) -> Pace:
        """Return the pace of so many trainings together, measured for so many seconds.

        Raises:
            MeasurementError: they did not run.
        """
        try:
            if self._pool is None:
                return _pace(config, self.device, trials, seconds)
            threads = max(1, min(threads_for(config), usable_cores() // trials))
            running = [self._pool.submit(_pace, config, CPU, 1, seconds, threads) for _ in range(trials)]
            wait(running)
            paces = [future.result() for future in running]
        except BrokenProcessPool:
            raise MeasurementError("one of its processes was killed, perhaps for lack of memory") from None
        except Exception as error:  # a compiler, a driver or a library may fail in its own way
            raise MeasurementError(reason_of(error)) from error
        return Pace(
            images_per_second=sum(pace.images_per_second for pace in paces),
            setup_seconds=max(pace.setup_seconds for pace in paces),
        )


@contextmanager
def runner_for(device: torch.device, *, cores: int) -> Iterator[Runner]:
    """Yield the runner of a device. On a CPU, start a process for each core first, and wait until all are ready."""
    if device.type == "cuda":
        yield Runner(device, GPU_TRIALS)
        return
    processes = min(cores, MAX_PROCESSES)
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads in a broken state
    arguments = device, context.Barrier(processes)
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=arguments)
    try:
        with blocked(signal.SIGINT):  # a terminal sends Ctrl-C to all of them; this process ends the others
            started = [pool.submit(int) for _ in range(processes)]
        wait(started)
        yield Runner(device, (*(2**power for power in range(10) if 2**power < processes), processes), pool)
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


def _begin(device: torch.device, all_ready: Barrier | None = None) -> None:
    """Make the images and train once, so that no set-up pays for what a process does once; wait for the others."""
    global _data
    _data = noise().to(device)
    _pace(WARM_UP, device, 1, 0.0)
    if all_ready is not None:
        all_ready.wait()


def _pace(config: TrialConfig, device: torch.device, trials: int, seconds: float, threads: int = 1) -> Pace:
    if device.type == "cuda":
        gc.collect()  # the memory of the measurement before
        torch.cuda.empty_cache()
    else:
        torch.set_num_threads(threads)
    return training_pace(config, _data, trials=trials, device=device, seconds=seconds)


#: The images, in each process that trains.
_data: SearchData
