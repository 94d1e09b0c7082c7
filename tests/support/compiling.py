"""Stand-ins for `compile_ahead.compile_share`, for processes without a GPU. A process finds them by their names."""

import os
import signal
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection


def done_at_once(
    pipe: "Connection[int | str, int | str]", configs: Sequence[str], device: str, share: int, shares: int
) -> None:
    for number in range(1, len(configs) + 1):
        pipe.send(number)


def fails(
    pipe: "Connection[int | str, int | str]", configs: Sequence[str], device: str, share: int, shares: int
) -> None:
    pipe.send("no compiler was found")


def dies(
    pipe: "Connection[int | str, int | str]", configs: Sequence[str], device: str, share: int, shares: int
) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleeps(
    pipe: "Connection[int | str, int | str]", configs: Sequence[str], device: str, share: int, shares: int
) -> None:
    time.sleep(3600)
