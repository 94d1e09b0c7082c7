"""Cores and memory of a container, from files as the kernel writes them."""

import os
from pathlib import Path

import psutil
import pytest

from kmnist_search.host import resources
from kmnist_search.host.resources import available_memory, usable_cores


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder instead of the kernel's, on a machine of 16 cores."""
    monkeypatch.setattr(resources, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(resources, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    return tmp_path / "cgroup"


def _write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_without_limits_all_cores_and_all_free_memory_may_be_used(cgroups: Path) -> None:
    assert usable_cores() == 16
    resources.MEMBERSHIP.write_text("0::/user.slice\n")
    _write(cgroups / "user.slice", cpu__max="max 100000", memory__max="max", memory__current="5")
    assert usable_cores() == 16
    assert available_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


@pytest.mark.parametrize(("quota", "cores"), [("250000", 2), ("50000", 1), ("9900000", 16)])
def test_the_quota_of_a_container_limits_the_cores(cgroups: Path, quota: str, cores: int) -> None:
    resources.MEMBERSHIP.write_text("0::/../outside/the/container\n")
    _write(cgroups, cpu__max=f"{quota} 100000")
    assert usable_cores() == cores


def test_a_control_group_around_ones_own_limits_too(cgroups: Path) -> None:
    resources.MEMBERSHIP.write_text("0::/job/step\n")
    _write(cgroups / "job" / "step", cpu__max="800000 100000")
    _write(cgroups / "job", cpu__max="300000 100000")
    assert usable_cores() == 3


def test_limits_of_the_first_version_are_read_too(cgroups: Path) -> None:
    resources.MEMBERSHIP.write_text("2:cpu,cpuacct:/docker/1\n1:memory:/docker/1\n0::/\n")
    _write(cgroups / "cpu" / "docker" / "1", cpu__cfs_quota_us="400000", cpu__cfs_period_us="100000")
    _write(cgroups / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    figures = {"memory__limit_in_bytes": "1000000", "memory__usage_in_bytes": "900000"}
    _write(cgroups / "memory" / "docker" / "1", **figures, memory__stat="cache 1\ntotal_inactive_file 300000")
    assert usable_cores() == 4
    assert available_memory() == 400_000


def test_memory_that_a_container_has_left_counts_files_it_can_let_go(cgroups: Path) -> None:
    resources.MEMBERSHIP.write_text("0::/\n")
    _write(cgroups, memory__max="2000000", memory__current="1500000", memory__stat="anon 7\ninactive_file 100000")
    assert available_memory() == 600_000
