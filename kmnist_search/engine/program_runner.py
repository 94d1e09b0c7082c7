"""Runs the epochs of a program's replicas, on a GPU in a CUDA stream of their own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from kmnist_search.engine.cuda_graphs import GraphStepping
from kmnist_search.engine.program import Program
from kmnist_search.engine.replica import Replica
from kmnist_search.engine.stepping import EagerStepping, Stepping
from kmnist_search.engine.verdict import verdict


class ProgramRunner:
    """A program on a device, and its position in the current epoch. Its replicas take each step together.

    Code that uses the program must do so within `on_stream()`.
    """

    def __init__(self, device: torch.device, make: Callable[[], Program]) -> None:
        self._stream = _new_stream(device)
        with self.on_stream():
            self.program = make()
        self._stepping: Stepping = (
            GraphStepping(self.program, self._stream)
            if self._stream is not None and not verdict(device).graphs
            else EagerStepping(self.program)
        )
        self._is_begun = False

    def advance(self, replicas: Sequence[Replica]) -> bool:
        """Advance the current epoch a little, without waiting; return whether it is over."""
        with self.on_stream():
            if not self._is_begun:
                position = min(replica.position for replica in replicas)  # one that has diverged stays at the end
                self._stepping.begin([replica.begin_epoch() for replica in replicas], position)
                self._is_begun = True
            is_over = self._stepping.advance()
        for replica in replicas:
            replica.position = self._stepping.position
        return is_over

    def take_sums(self) -> list[list[float]]:
        """Return each replica's sums of the ended epoch, and reset them to 0: the only wait in an epoch."""
        self._is_begun = False
        with self.on_stream():
            sums: list[list[float]] = self.program.sums_S4.tolist()
            self.program.sums_S4.zero_()
        return sums

    @contextmanager
    def saving(self) -> Iterator[None]:
        """While entered, the program is paused so that its state can be copied. On leaving the copies are complete.

        They can then be used in any stream without waiting.
        """
        self._stepping.wait()
        with self.on_stream():
            yield
        self._stepping.wait()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """While entered, the state of the program may be changed. The replicas resume from the new state."""
        if self._stream:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))  # the state was copied there
        with self.on_stream():
            yield
        self._stepping.reset()
        self._is_begun = False

    def on_stream(self) -> AbstractContextManager[Any]:
        """While entered, a GPU works in the stream of this program."""
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()


def _new_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return a new stream that waits for the work queued on a GPU so far; None on the CPU."""
    if device.type != "cuda":
        return None
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream
