"""Retraining as real processes that are stopped and killed: afterwards nothing was done twice and no look is lost."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command

Start = Callable[..., Command]
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow

RETRAIN = ("best", "--retrain", "--top-k", "2", "--seeds", "2", "--final-seeds", "2", "--epochs", "40")


def test_stopped_and_killed_on_the_way_it_ends_as_if_nothing_had_happened(
    tiny_study: Path, start: Start, command: Run, tmp_path: Path
) -> None:
    assert command("run", "tiny.toml", "--trials", "3", "--set", "study.pruner=none").returncode == 0
    outputs = []
    for stop, exit_code, until in (
        (signal.SIGINT, 130, "[1/6] rerun"),
        (signal.SIGKILL, -9, "[3/6] rerun"),
        (signal.SIGTERM, 130, "[5/6] final"),
    ):
        running = start(*RETRAIN)
        running.wait_for(lambda running=running, until=until: until in running.output)  # type: ignore[misc]
        running.process.send_signal(stop)
        assert running.ended(seconds=20) == exit_code, running.output
        outputs.append(running.output)
        if stop != signal.SIGKILL:
            assert "Stopped. The same command goes on where it was." in running.output
        assert not (tmp_path / "tiny-best").exists()
    last = command(*RETRAIN, "--json")
    assert last.returncode == 0, last.stderr
    metrics = json.loads(last.stdout)
    assert last.stderr.count("(done before)") >= 5
    assert len(metrics["ledger"]) == 2
    assert [len(model["epochs"]) for model in metrics["test"]["models"]] == [40, 40]
    assert not list((tmp_path / "kmnist-search.checkpoints").glob("*/*.pt"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tiny-best")]
