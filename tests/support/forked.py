"""`kmnist-search` as processes that are there at once: forked from one that has everything imported.

A worker takes three seconds to import torch, too long where dozens are started. Each is still a process of its own that
runs the whole command, and can be killed, paused and signalled. Its trainings can be slow as those of large nets are,
by waiting instead of computing: so a test can find them under way, on a machine however fast, at no cost.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kmnist_search.engine.replica import Replica

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        *("kmnist_search.cli.main", "kmnist_search.run.search", "kmnist_search.terminal.run_messages"),
        *("kmnist_search.run.supervisor", "kmnist_search.run.join", "kmnist_search.api.work"),
        # What is imported on the way.
        *("torch._dynamo", "alembic.command", "alembic.config", "alembic.migration", "platformdirs", "psycopg"),
        *("sklearn.datasets", "sklearn.model_selection", "kmnist_search.study.summary"),
        *("optuna_dashboard", "plotly.io", "plotly.graph_objs.bar", "plotly.graph_objs.scatter"),
        *("PIL.GifImagePlugin", "PIL.JpegImagePlugin", "PIL.PngImagePlugin"),
    ]
)
#: Two threads that see the end of a process at once would both read its exit code, which is there to be read once.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Ways:
    """What is otherwise than where a user types the command.

    Attributes:
        checkpoint_seconds: after how much training a checkpoint is due.
        step_seconds: to wait before each step of a training.
        forks_workers: lets a run of several worker processes fork them, too.
        enter: called first of all; can be pickled.
        environment: what is set beside what the tests have.
    """

    checkpoint_seconds: float | None = None
    step_seconds: float = 0.0
    forks_workers: bool = False
    enter: Callable[[], None] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


class Run(Protocol):
    """What a forked command and `conftest.Command` have in common."""

    @property
    def output(self) -> str: ...


class Forked:
    """A running command, with its output in a file, in a process group of its own."""

    def __init__(self, arguments: tuple[str, ...], folder: Path, ways: Ways) -> None:
        self.log = folder / f"{time.monotonic_ns()}.log"
        self.log.touch()
        self.process = SERVER.Process(target=_be_the_command, args=(arguments, folder, self.log, ways))
        with _one_at_a_time:
            self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; the negative number of the signal that killed it."""
        with _one_at_a_time:
            return self.process.exitcode

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> bool:
        """Kill it and wait for its end; return whether it was still running."""
        self.process.kill()
        return self.ended() == -signal.SIGKILL

    def ended(self, *, seconds: float = 240) -> int:
        """Wait for its end and return the exit code."""
        deadline = time.monotonic() + seconds
        while (exit_code := self.exit_code) is None:
            assert time.monotonic() < deadline, f"still runs after {seconds} s:\n{self.output}"
            time.sleep(0.02)
        return exit_code


class Forks:
    """Starts commands in a folder, and knows all it has started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Forked] = []

    def __call__(self, *arguments: str, checkpoint_seconds: float | None = None) -> Forked:
        return self.start(*arguments, ways=Ways(checkpoint_seconds=checkpoint_seconds))

    def slowly(self, *arguments: str, checkpoint_seconds: float | None = None, step_seconds: float = 0.02) -> Forked:
        """Start a command whose trainings on the digits take a fifth of a second an epoch."""
        return self.start(*arguments, ways=Ways(checkpoint_seconds=checkpoint_seconds, step_seconds=step_seconds))

    def start(self, *arguments: str, ways: Ways) -> Forked:
        run = Forked(arguments, self.folder, ways)
        self.started.append(run)
        return run

    def finished(self, *arguments: str) -> Forked:
        """Run a command to its end, which is a good one."""
        run = self(*arguments)
        assert run.ended() == 0, run.output
        return run


@contextmanager
def forks(folder: Path) -> Iterator[Forks]:
    """Lend something that starts commands, and kill at the end what is left of them."""
    lent = Forks(folder)
    try:
        yield lent
    finally:
        for run in lent.started:
            run.kill()


def wait_until(ready: Callable[[], bool], *alive: Forked, seconds: float = 240, every: float = 0.05) -> None:
    """Wait until `ready()`; fail if one of the commands ends or time runs out before."""
    deadline = time.monotonic() + seconds
    while not ready():
        for run in alive:
            assert run.exit_code is None, f"ended with {run.exit_code}:\n{run.output}"
        if time.monotonic() > deadline:
            raise AssertionError("\n".join([f"waited {seconds} s in vain:", *(run.output for run in alive)]))
        time.sleep(every)


def _be_the_command(arguments: tuple[str, ...], folder: Path, log: Path, ways: Ways) -> None:
    from kmnist_search.cli.main import main
    from kmnist_search.worker import trial_run as trial_run

    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    if ways.enter is not None:
        ways.enter()
    os.setsid()  # as a shell gives each command a process group
    os.chdir(folder)
    for name in [name for name in os.environ if name.startswith("KMNIST_SEARCH_")]:
        del os.environ[name]
    os.environ.update({"KMNIST_SEARCH_WORKERS": "1", **ways.environment})
    if ways.checkpoint_seconds is not None:
        trial_run.CHECKPOINT_EVERY_SECONDS = ways.checkpoint_seconds
    if ways.step_seconds:
        _slow_down(ways.step_seconds)
    if ways.forks_workers:
        _fork_workers()
    sys.argv = ["kmnist-search", *arguments]
    main()


def _slow_down(step_seconds: float) -> None:
    from kmnist_search.engine.program_runner import ProgramRunner

    advance = ProgramRunner.advance

    def advance_later(self: ProgramRunner, replicas: "Sequence[Replica]") -> bool:
        time.sleep(step_seconds)
        return advance(self, replicas)

    ProgramRunner.advance = advance_later  # type: ignore[method-assign]


def _fork_workers() -> None:
    import torch

    from kmnist_search.cli import best, run
    from kmnist_search.run import worker_process

    torch.set_num_threads(1)  # others would not come along
    for command in (best, run):
        command.import_ahead = lambda *_: None  # type: ignore[attr-defined]
    for context in ("FORKED", "SPAWNED"):
        setattr(worker_process, context, multiprocessing.get_context("fork"))
