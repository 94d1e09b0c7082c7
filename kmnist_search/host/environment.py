"""On what the program runs: versions, machine, and its own commit. Changes nothing."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("kmnist-search", "torch", "optuna")


def versions() -> dict[str, str]:
    """Return the versions of this package, of Python, and of what a training depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def package_version() -> str:
    """Return the version of this package."""
    return version("kmnist-search")


def machine() -> str:
    """Return processor, number of usable cores and operating system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores, {platform.system()} {platform.release()}"


def scheduler_job() -> str | None:
    """Return what Slurm calls the job that this process is part of; None outside of one."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def git_commit() -> str | None:
    """Return the commit that this program runs from, "-dirty" if it was changed since; None outside of a clone."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None  # no git here, or it does not trust the folder


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
