"""Retraining as real processes that are stopped and killed: afterwards nothing was done twice and no look is lost."""

import json
import signal
from pathlib import Path

import pytest

from tests.support.forked import forks, wait_until

pytestmark = pytest.mark.slow

RETRAIN = ("best", "--retrain", "--top", "2", "--seeds", "2", "--final-seeds", "2", "--epochs", "6")


def test_stopped_and_killed_on_the_way_it_ends_as_if_nothing_had_happened(tiny_study: Path, tmp_path: Path) -> None:
    with forks(tmp_path) as start:
        start.finished("run", "tiny.toml", "--trials", "3", "--set", "study.pruner=none")
        for stop, exit_code, until in (
            (signal.SIGINT, 130, "[1/6] rerun"),
            (signal.SIGKILL, -9, "[3/6] rerun"),
            (signal.SIGTERM, 130, "[5/6] final"),
        ):
            running = start.slowly(*RETRAIN)
            wait_until(lambda running=running, until=until: until in running.output, running)  # type: ignore[misc]
            running.signal(stop)
            assert running.ended() == exit_code, running.output
            if stop != signal.SIGKILL:
                assert "Stopped. The same command resumes." in running.output
            assert not (tmp_path / "tiny-best").exists()
        told, _, printed = start.finished(*RETRAIN, "--json").output.partition("\n{")
    metrics = json.loads("{" + printed)
    assert told.count("(done before)") >= 5
    assert len(metrics["ledger"]) == 2
    assert [len(model["epochs"]) for model in metrics["test"]["models"]] == [6, 6]
    assert not list((tmp_path / "kmnist-search.checkpoints").glob("*/*.pt"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tiny-best")]
