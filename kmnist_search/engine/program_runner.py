"""Brings the replicas of one program through their epochs, on a GPU in a stream of their own. Computes nothing."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from kmnist_search.engine.program import Program
from kmnist_search.engine.replica import Replica
from kmnist_search.engine.stepping import EagerStepping, GraphStepping, Stepping


class ProgramRunner:
    """A program made on a device, and how far the epoch at hand has come. Its replicas are always at the same step.

    Whoever touches the program does so within `on_stream()`.
    """

    def __init__(self, device: torch.device, make: Callable[[], Program]) -> None:
        self._stream = _stream_beside_others(device)
        with self.on_stream():
            self.program = make()
        self._stepping: Stepping = (
            GraphStepping(self.program, self._stream) if self._stream else EagerStepping(self.program)
        )
        self._is_begun = False

    def advance(self, replicas: Sequence[Replica]) -> bool:
        """Take the epoch at hand a little further, without waiting; return whether it is over."""
        with self.on_stream():
            if not self._is_begun:
                self._stepping.begin([replica.begin_epoch() for replica in replicas], replicas[0].position)
                self._is_begun = True
            is_over = self._stepping.advance()
        for replica in replicas:
            replica.position = self._stepping.position
        return is_over

    def take_sums(self) -> list[list[float]]:
        """Return each replica's sums of the epoch that is over, and set them to 0: the one wait of an epoch."""
        self._is_begun = False
        with self.on_stream():
            sums: list[list[float]] = self.program.sums_S4.tolist()
            self.program.sums_S4.zero_()
        return sums

    @contextmanager
    def saving(self) -> Iterator[None]:
        """While entered, the program stands still to be looked at; what is copied of it is there on leaving.

        Whoever writes that to a file does so in another stream, which waits for none.
        """
        self._stepping.wait()
        with self.on_stream():
            yield
        self._stepping.wait()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """While entered, the program may be changed; from then on the replicas go on from where they are then."""
        if self._stream:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))  # what is loaded was copied there
        with self.on_stream():
            yield
        self._stepping.reset()
        self._is_begun = False

    def on_stream(self) -> AbstractContextManager[Any]:
        """While entered, a GPU does what it is told in this drive's own stream."""
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()


def _stream_beside_others(device: torch.device) -> torch.cuda.Stream | None:
    """Return a stream that begins after what was queued on a GPU so far; None on the CPU, which has none."""
    if device.type != "cuda":
        return None
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream
