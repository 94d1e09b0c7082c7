"""The command as a user runs it, and a study file that takes seconds."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("kmnist-search")

TINY_STUDY = """
[study]
trials = 6
sampler = { name = "tpe", startup_trials = 3 }
pruner = { name = "successive_halving", min_epochs = 1, reduction_factor = 2 }

[data]
dataset = "digits"

[train]
epochs = 4

[space]
learning_rate = { low = 1e-3, high = 1e-2, log = true }
dim = { choices = [8, 16] }

[fixed]
patch_size = 14
token_width = 8
channel_width = 16
num_blocks = 1
batch_size = 128
"""


class Command:
    """A running `kmnist-search`, its output in a file, which never fills up, in a process group of its own.

    Args:
        arguments: of the command.
        folder: where it is started.
        within: what the command line begins with, so that it runs on another host, for example.
    """

    def __init__(self, arguments: Sequence[str], folder: Path, *, within: Sequence[str] = ()) -> None:
        self.log = folder / f"{time.monotonic_ns()}.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*within, COMMAND, *arguments],
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for(self, ready: Callable[[], bool], *, seconds: float = 240) -> None:
        """Wait until `ready()`; fail if the command ends or time runs out before."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output}"
            assert time.monotonic() < deadline, f"waited {seconds} s in vain:\n{self.output}"
            time.sleep(0.1)

    def ended(self, *, seconds: float = 240) -> int:
        return self.process.wait(seconds)


def environment() -> dict[str, str]:
    """The environment of a user who has set nothing up, but that a run works in its own process."""
    others = {
        key: value for key, value in os.environ.items() if not key.startswith(("KMNIST_SEARCH_", "OMP_", "TRITON_"))
    }
    return {**others, "KMNIST_SEARCH_WORKERS": "1"}
