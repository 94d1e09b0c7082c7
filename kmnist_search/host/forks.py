"""The process that worker processes for a CPU are forked from, once it has imported what they need.

A worker that starts anew imports torch for seconds. This one imports it once for all, while the command itself still
reads its input. It has one thread and never uses a GPU, so it can be forked.
"""

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from types import ModuleType

from kmnist_search.host.resources import usable_cores
from kmnist_search.host.signals import StopSignals, blocked

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["kmnist_search.run.worker_process"])

#: Exists where there is an NVIDIA GPU, whose processes are not forked.
NVIDIA_DEVICE = Path("/dev/nvidiactl")


def import_ahead(device: str, workers: int | None) -> None:
    """Start that process if several workers on a CPU are likely.

    Args:
        device: as it was typed.
        workers: processes on a CPU; None means as many as are fastest.
    """
    on_cpu = device == "cpu" or (device == "auto" and not NVIDIA_DEVICE.exists())
    if not on_cpu or min(usable_cores(), workers or 2) < 2:
        return
    with blocked(*StopSignals.SIGNALS):  # as its children are, until they can handle them
        forkserver.ensure_running()


@contextmanager
def without_main_module() -> Iterator[None]:
    """While entered, a process that is started does not import this program's main module.

    It needs nothing from there, and a script that is not written for it would begin again in each process.
    """
    before = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = before
