"""The identity of a process, and whether that process is dead."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The process that runs a trial.

    Attributes:
        host: name of the machine, for people.
        machine: identifies the machine, its current boot and the container.
        pid: number of the process on that machine.
        born: start of the process in seconds after the machine's boot, which setting the clock does not change. It
            tells the process from a later one with the same pid.
    """

    host: str
    machine: str
    pid: int
    born: float

    @classmethod
    def this_process(cls) -> "Owner":
        return cls(host=platform.node(), machine=_machine(), pid=os.getpid(), born=_born(psutil.Process()))

    def is_dead(self) -> bool:
        """Return True if the process certainly no longer runs. On another machine that is unknown: False."""
        if self.machine != _machine():
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(_born(process) - self.born) > 1 or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # not Linux
        return platform.node()


def _born(process: psutil.Process) -> float:
    return process.create_time() - psutil.boot_time()
