"""Tests of cli/doctor.py: one page for people, the same as JSON for reports, and an exit code."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from kmnist_search.doctor import machine


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_each_check_is_a_line_and_the_last_says_whether_all_is_well(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: iter(()))
    done = invoke("doctor", "--data-dir", ".")
    names = [line[5:20].strip() for line in done.output.splitlines() if line[:4].strip() in ("ok", "-", "BAD")]
    assert names == [
        *("kmnist-search", "Python", "packages", "processor", "memory"),
        *("images", "database", "checkpoints", "Slurm", "Kubernetes", "output"),
    ]
    assert done.output.splitlines()[-1] == "All of this works."
    assert done.exit_code == 0


def test_what_is_bad_gives_exit_code_1_and_json_names_it_without_a_password(
    invoke: Callable[..., Result], tmp_path: Path
) -> None:
    done = invoke("doctor", "--json", "--storage", "postgresql://me:hush@127.0.0.1:1/studies")
    assert done.exit_code == 1
    findings = json.loads(done.output)
    bad = {finding["name"] for finding in findings if finding["state"] == "bad"}
    assert bad - {"checkpoints"} == {"database"}  # a busy disk is slow, which is told
    assert "hush" not in done.output


def test_the_check_leaves_the_folder_as_it_was(invoke: Callable[..., Result], tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    invoke("doctor")
    assert sorted(tmp_path.iterdir()) == before
