"""Where work is measured: in this process for a GPU, in processes of their own for a CPU, as the search works there."""

import logging
import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import torch

from kmnist_search.bench.images import images_in
from kmnist_search.bench.nets import WARM_UP
from kmnist_search.bench.stopwatch import Throughput
from kmnist_search.bench.work import OurTrainings, Work, clear_memory
from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.threads import threads_for
from kmnist_search.errors import MeasurementError
from kmnist_search.host.resources import usable_cores

#: More processes than this would measure the memory's patience: each holds torch and the images, half a gigabyte.
MAX_PROCESSES = 16
GPU_TRIALS = (1, 2, 4, 8)
#: How long a process that has nothing more to do may take to end by itself.
LEAVE_SECONDS = 5.0


class Testbed(Protocol):
    """Measures one thing at a time.

    Attributes:
        device: what trains.
        trials_at_once: how many trainings at a time are worth trying, rising from 1.
    """

    device: torch.device
    trials_at_once: tuple[int, ...]

    def ours(self, config: TrialConfig, *, trials: int, seconds: float) -> Throughput:
        """Return the pace of so many of our trainings together.

        Raises:
            MeasurementError: they did not run.
        """

    def other(self, work: Work) -> Throughput:
        """Return the pace of another loop, as its user would run it.

        Raises:
            MeasurementError: it did not run.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class GpuTestbed:
    """Everything in this process, our trainings interleaved."""

    def __init__(self, device: torch.device, data: SearchData) -> None:
        self.device, self.data = device, data
        self.trials_at_once: tuple[int, ...] = GPU_TRIALS
        self.ours(WARM_UP, trials=1, seconds=0.0)

    def ours(self, config: TrialConfig, *, trials: int, seconds: float) -> Throughput:
        threads = torch.get_num_threads()
        return self.other(
            OurTrainings(config=config, trials=trials, device=self.device, threads=threads, seconds=seconds)
        )

    def other(self, work: Work) -> Throughput:
        clear_memory(self.device)
        try:
            with _quiet_libraries():
                return work(self.data)
        except Exception as error:  # a compiler, a driver or a library may fail in its own way
            raise MeasurementError(reason_of(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return


class CpuTestbed:
    """Processes that were started before, ours with threads that wait passively, the other as torch comes."""

    device = torch.device("cpu")

    def __init__(self, data_dir: Path, *, cores: int, noise_images: int | None = None) -> None:
        processes = min(cores, MAX_PROCESSES)
        self.cores = cores
        self.trials_at_once = (*(2**power for power in range(10) if 2**power < processes), processes)
        with ExitStack() as started:
            passively = {"OMP_WAIT_POLICY": "PASSIVE"}
            self._ours = [
                started.enter_context(BenchProcess(data_dir, noise_images, environment=passively))
                for _ in range(processes)
            ]
            self._other = started.enter_context(BenchProcess(data_dir, noise_images, environment={}))
            for process in (*self._ours, self._other):
                process.wait_until_ready()
            self._started = started.pop_all()

    def ours(self, config: TrialConfig, *, trials: int, seconds: float) -> Throughput:
        threads = max(1, min(threads_for(config), self.cores // trials))
        work = OurTrainings(config=config, trials=1, device=self.device, threads=threads, seconds=seconds)
        for process in self._ours[:trials]:
            process.begin(work)
        paces = [process.pace() for process in self._ours[:trials]]
        return Throughput(
            images_per_second=sum(pace.images_per_second for pace in paces),
            setup_seconds=max(pace.setup_seconds for pace in paces),
        )

    def other(self, work: Work) -> Throughput:
        self._other.begin(work)
        return self._other.pace()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in (*self._ours, self._other):
            process.let_go()  # all together, since leaving takes each a second
        self._started.__exit__(kind, error, at)


def testbed_for(device: torch.device, data: SearchData, data_dir: Path) -> Testbed:
    """Return where a device's work is measured; `data` are the images that `data_dir` has, or noise."""
    if device.type == "cuda":
        return GpuTestbed(device, data.to(device))
    return CpuTestbed(data_dir, cores=usable_cores())


@dataclass(frozen=True, kw_only=True)
class _Failed:
    reason: str


class BenchProcess:
    """A process that holds the images and measures what it is sent."""

    def __init__(self, data_dir: Path, noise_images: int | None, *, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads in a broken state
        self._connection, theirs = context.Pipe()
        # Not a daemon: a DataLoader has processes of its own.
        self._process = context.Process(target=_serve, args=(theirs, data_dir, noise_images))
        with _without_interrupts(), _openmp_settings(environment):
            self._process.start()
        theirs.close()

    def wait_until_ready(self) -> None:
        self._received()

    def begin(self, work: Work) -> None:
        self._connection.send(work)

    def pace(self) -> Throughput:
        pace = self._received()
        assert isinstance(pace, Throughput)
        return pace

    def let_go(self) -> None:
        """Ask for nothing more: if it waits for work, it ends."""
        self._connection.close()

    def _received(self) -> Throughput | None:
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            raise MeasurementError(f"its process ended with exit code {self._process.exitcode}") from None
        if isinstance(answer, _Failed):
            raise MeasurementError(answer.reason)
        assert answer is None or isinstance(answer, Throughput)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.let_go()
        self._process.join(LEAVE_SECONDS if kind is None else 0)
        self._process.terminate()
        self._process.join()


def _serve(connection: Connection, data_dir: Path, noise_images: int | None) -> None:
    images = images_in(data_dir) if noise_images is None else images_in(data_dir, noise_images=noise_images)
    threads = torch.get_num_threads()  # which stay as they are, for the loops that do not choose theirs
    OurTrainings(config=WARM_UP, trials=1, device=torch.device("cpu"), threads=threads, seconds=0.0)(images.data)
    connection.send(None)
    while True:
        try:
            work = connection.recv()
        except EOFError:  # whoever asked is gone
            return
        try:
            with _quiet_libraries():
                pace = work(images.data)
            connection.send(pace)
        except Exception as error:  # a compiler or a library may fail in its own way
            connection.send(_Failed(reason=reason_of(error)))


def reason_of(error: Exception) -> str:
    """Return an error on one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep to themselves what libraries warn of: how a loop is compiled is not the business of who measures it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start processes that Ctrl-C, which a terminal sends to all, does not reach: this one ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _openmp_settings(settings: Mapping[str, str]) -> Iterator[None]:
    """Start processes with these settings of OpenMP and no others."""
    before = {key: value for key, value in os.environ.items() if key.startswith("OMP_")}
    for key in before:
        del os.environ[key]
    os.environ.update(settings)
    try:
        yield
    finally:
        for key in settings:
            del os.environ[key]
        os.environ.update(before)
