"""The cores and the memory that this process may use, within its cgroup limits."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the number of cores, at least 1, that this process may use.

    A container that is limited to two cores of sixty-four still sees all of them; only its quota says how many it gets.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _control_groups("cpu") if (quota := _cores_of(folder)) is not None]
    return max(1, min([cores, *(int(quota) for quota in quotas)]))


def available_memory() -> int:
    """Return the bytes that are free on this machine, or within the limit of the container."""
    free = [bytes_ for folder in _control_groups("memory") if (bytes_ := _bytes_left_in(folder)) is not None]
    return max(0, min([psutil.virtual_memory().available, *free]))


def _control_groups(controller: str) -> Iterator[Path]:
    """Return the folders of this process's control groups and their parents; none outside of Linux."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controller if controllers else CGROUPS
        here = Path(path.lstrip("/"))
        yield from (root / each for each in (here, *here.parents) if (root / each).is_dir())


def _cores_of(folder: Path) -> float | None:
    """Return the core limit of a control group, None without a limit."""
    quota, _, period = _read(folder / "cpu.max").partition(" ")  # cgroup version 2
    if not quota:
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    if quota in ("", "max", "-1") or not period:
        return None
    return int(quota) / int(period)


def _bytes_left_in(folder: Path) -> int | None:
    """Return the free bytes of a control group, None without a limit."""
    limit, used = _read(folder / "memory.max"), _read(folder / "memory.current")
    if not limit:
        limit, used = _read(folder / "memory.limit_in_bytes"), _read(folder / "memory.usage_in_bytes")
    if limit in ("", "max") or not used:
        return None
    figures = dict(line.split(" ", 1) for line in _read(folder / "memory.stat").splitlines())
    # Cached files count as used, but the kernel frees them when memory is needed.
    cached = int(figures.get("total_inactive_file", figures.get("inactive_file", 0)))
    return int(limit) - int(used) + cached


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
