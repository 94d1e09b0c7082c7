"""Versions, machine, scheduler job and commit of the running program."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from kmnist_search.host.resources import usable_cores

PACKAGES = ("kmnist-search", "torch", "optuna")


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package, and of the packages that a training depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def package_version() -> str:
    """Return the version of this package."""
    return version("kmnist-search")


def machine() -> str:
    """Return the processor, the number of usable cores and the operating system as one text."""
    return f"{_processor()}, {usable_cores()} cores, {platform.system()} {platform.release()}"


def scheduler_job() -> str | None:
    """Return Slurm's name of the job that this process belongs to, None outside of Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def git_commit() -> str | None:
    """Return the commit of the source that runs, with "-dirty" if files were changed; None outside of a clone."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None  # git is missing, or does not trust the folder


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
