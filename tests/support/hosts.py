"""Hosts of a test's own on this machine, on two networks that a cable joins.

A network is a namespace of Linux with one end of a veth pair. A host is a name and processes of its own in one: what
tells machines from each other sees another machine.
"""

import ctypes
import importlib
import itertools
import os
import platform
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Side = Literal["near", "far"]

#: Of a range that is for documents: no real host is shadowed.
ADDRESSES: dict[Side, str] = {"near": "192.0.2.1", "far": "192.0.2.2"}
#: Of <sched.h>, <sys/mount.h> and <sys/prctl.h>: Python has names for them from 3.12 on.
NEW_NETWORK, NEW_NAME, NEW_PROCESSES, NEW_MOUNTS = 0x40000000, 0x04000000, 0x20000000, 0x00020000
PRIVATE_BELOW = (1 << 18) | (1 << 14)
SIGNAL_AT_PARENTS_DEATH = 1


class NoNetworkError(Exception):
    """This machine does not let the tests have networks; says why."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine of its own to the process that calls it: by its name, its network and its processes."""

    name: str
    network: str

    def __call__(self) -> None:
        """Go on as a process that is there; the one that came waits for its end and ends as it does."""
        libc = ctypes.CDLL(None, use_errno=True)
        network = os.open(self.network, os.O_RDONLY)
        _must(libc.setns(network, NEW_NETWORK))
        os.close(network)
        _must(libc.unshare(NEW_NAME | NEW_PROCESSES | NEW_MOUNTS))
        if inside := os.fork():  # only a child is among the new processes
            _, status = os.waitpid(inside, 0)
            os._exit(abs(os.waitstatus_to_exitcode(status)))
        _must(libc.prctl(SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL))
        _must(libc.mount(None, b"/", None, PRIVATE_BELOW, None))
        _must(libc.mount(b"proc", b"/proc", b"proc", 0, None))
        socket.sethostname(self.name)
        importlib.reload(platform)  # it remembers the name that it was asked for first


def _must(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


_numbers = itertools.count(1)


class Cable:
    """Joins a near and a far network, of which nobody else has a part. To be entered and left."""

    def __init__(self) -> None:
        name = f"kmnist-search-{os.getpid()}-{next(_numbers)}"
        self.spaces: dict[Side, str] = {side: f"{name}-{side}" for side in ADDRESSES}

    def __enter__(self) -> "Cable":
        try:
            self._lay()
        except (OSError, subprocess.CalledProcessError) as error:
            self._take_up()
            raise NoNetworkError(getattr(error, "stderr", None) or str(error)) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._take_up()

    def at(self, side: Side) -> Sequence[str]:
        """Return what a command begins with that shall be on one side."""
        return ("ip", "netns", "exec", self.spaces[side])

    def host(self, name: str, side: Side) -> "Host":
        """Return what a process enters that shall be on a host of its own."""
        return Host(name=name, network=f"/run/netns/{self.spaces[side]}")

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        """While entered, the near network has no cable: who would go there from the far one is told so in seconds."""
        self._ip("near", "link", "set", "cable", "down")
        try:
            yield
        finally:
            self._ip("near", "link", "set", "cable", "up")

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """While entered, what is sent from far arrives, and every answer is dropped without a word."""
        answers = ("blackhole", f"{ADDRESSES['far']}/32")
        self._ip("near", "route", "add", *answers)
        try:
            yield
        finally:
            self._ip("near", "route", "delete", *answers)

    def _lay(self) -> None:
        for space in self.spaces.values():
            _run("ip", "netns", "add", space)
        ends = {side: ("name", "cable", "netns", space) for side, space in self.spaces.items()}
        _run("ip", "link", "add", *ends["near"], "type", "veth", "peer", *ends["far"])
        for side, address in ADDRESSES.items():
            self._ip(side, "address", "add", f"{address}/24", "dev", "cable")
            self._ip(side, "link", "set", "cable", "up")
            self._ip(side, "link", "set", "lo", "up")
        _run(*self.at("far"), "unshare", "--uts", "--pid", "--fork", "--mount-proc", "true")

    def _take_up(self) -> None:
        for space in self.spaces.values():
            subprocess.run(["ip", "netns", "delete", space], stderr=subprocess.DEVNULL, check=False)

    def _ip(self, side: Side, *arguments: str) -> None:
        _run("ip", "-netns", self.spaces[side], *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
