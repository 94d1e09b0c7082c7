"""`kmnist-search` as processes that are there at once: forked from one that has everything imported.

A worker takes three seconds to import torch, too long where fifty are killed. Each is still a process of its own that
runs the whole command, and can be killed, paused and signalled.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        *("kmnist_search.cli", "kmnist_search.search", "kmnist_search.terminal"),
        # What is imported on the way.
        *("torch._dynamo", "alembic.command", "alembic.migration", "platformdirs", "psycopg"),
        *("sklearn.datasets", "sklearn.model_selection"),
    ]
)


class Run(Protocol):
    """What a forked command and `conftest.Command` have in common."""

    @property
    def output(self) -> str: ...


class Forked:
    """A running command, with its output in a file."""

    def __init__(self, arguments: tuple[str, ...], folder: Path, *, checkpoint_seconds: float | None) -> None:
        self.log = folder / f"{time.monotonic_ns()}.log"
        self.log.touch()
        self.process = SERVER.Process(
            target=_be_the_command, args=(arguments, folder, self.log, checkpoint_seconds), daemon=True
        )
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
        return self.process.exitcode

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> bool:
        """Kill it and wait for its end; return whether it was still running."""
        self.process.kill()
        self.process.join()
        return self.exit_code == -signal.SIGKILL

    def ended(self, *, seconds: float = 60) -> int:
        """Wait for its end and return the exit code."""
        self.process.join(seconds)
        assert self.exit_code is not None, f"still runs after {seconds} s:\n{self.output}"
        return self.exit_code


class Forks:
    """Starts commands in a folder, and knows all it has started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Forked] = []

    def __call__(self, *arguments: str, checkpoint_seconds: float | None = None) -> Forked:
        run = Forked(arguments, self.folder, checkpoint_seconds=checkpoint_seconds)
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
    yield lent
    for run in lent.started:
        run.process.kill()
        run.process.join()


def wait_until(ready: Callable[[], bool], *alive: Forked, seconds: float = 60, every: float = 0.02) -> None:
    """Wait until `ready()`; fail if one of the commands ends or time runs out before."""
    deadline = time.monotonic() + seconds
    while not ready():
        for run in alive:
            assert run.exit_code is None, f"ended with {run.exit_code}:\n{run.output}"
        shown = "\n".join(run.output for run in alive)
        assert time.monotonic() < deadline, f"waited {seconds} s in vain:\n{shown}"
        time.sleep(every)


def _be_the_command(arguments: tuple[str, ...], folder: Path, log: Path, checkpoint_seconds: float | None) -> None:
    from kmnist_search import lane
    from kmnist_search.cli import main

    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    os.chdir(folder)
    for name in [name for name in os.environ if name.startswith("KMNIST_SEARCH_")]:
        del os.environ[name]
    os.environ["KMNIST_SEARCH_WORKERS"] = "1"
    if checkpoint_seconds is not None:
        lane.CHECKPOINT_EVERY_SECONDS = checkpoint_seconds
    sys.argv = ["kmnist-search", *arguments]
    main()
