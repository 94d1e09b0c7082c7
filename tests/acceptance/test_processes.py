"""Whole runs as real processes: interrupted, killed, side by side. Afterwards the budget is exact and nothing runs."""

import json
import random
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Command

Start = Callable[..., Command]
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow

FINISHED = re.compile(r"^\[\d+/\d+\] trial (\d+) (?:complete|pruned|failed)", re.MULTILINE)


def _trials(command: Run) -> dict[str, int]:
    counts = json.loads(command("status", "--json").stdout)["trials"]
    assert isinstance(counts, dict)
    return counts


def _finished(*outputs: str) -> Counter[str]:
    return Counter(number for output in outputs for number in FINISHED.findall(output))


def test_interrupted_then_killed_then_started_again_a_run_ends_with_exactly_its_trials(
    tiny_study: Path, start: Start, command: Run
) -> None:
    arguments = ("run", "tiny.toml", "--trials", "12", "--set", "train.epochs=60", "--set", "study.pruner=none")
    outputs = []
    for stop, exit_code in ((signal.SIGINT, 130), (signal.SIGKILL, -9), (signal.SIGTERM, 130)):
        running = start(*arguments)
        running.wait_for(lambda running=running: len(_finished(running.output)) >= 2)  # type: ignore[misc]
        running.process.send_signal(stop)
        assert running.ended(seconds=15) == exit_code
        outputs.append(running.output)
        if stop != signal.SIGKILL:
            assert "none is left running here. To go on: kmnist-search run tiny.toml --trials 12" in running.output
            assert _trials(command)["running"] == 0
    assert _trials(command)["finished"] < 12
    last = command(*arguments)
    assert last.returncode == 0, last.stdout + last.stderr
    assert "12 of 12 trials are finished" in last.stdout
    counts = _trials(command)
    assert (counts["finished"], counts["complete"], counts["running"], counts["waiting"]) == (12, 12, 0, 0)
    # A trial that was ended just before a kill may have ended without its line; none has two.
    assert set(_finished(*outputs, last.stdout).values()) == {1}


def test_kills_at_random_moments_lose_and_double_nothing(tiny_study: Path, start: Start, command: Run) -> None:
    arguments = ("run", "tiny.toml", "--trials", "10", "--set", "train.epochs=40")
    moments = random.Random(0)
    outputs = []
    for _ in range(6):
        running = start(*arguments)
        running.wait_for(lambda running=running: "study tiny" in running.output)  # type: ignore[misc]
        try:
            running.ended(seconds=moments.uniform(0.0, 0.8))
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.ended()
        outputs.append(running.output)
    last = command(*arguments)
    assert last.returncode == 0, last.stdout + last.stderr
    counts = _trials(command)
    assert counts["finished"] == counts["total"] == 10
    assert counts["running"] == counts["waiting"] == 0
    assert set(_finished(*outputs, last.stdout).values()) == {1}


def test_runs_side_by_side_share_the_budget_exactly(tiny_study: Path, start: Start, command: Run) -> None:
    arguments = ("run", "tiny.toml", "--trials", "20", "--set", "train.epochs=40")
    runs = [start(*arguments) for _ in range(2)]
    assert [run.ended() for run in runs] == [0, 0], [run.output for run in runs]
    finished = _finished(*(run.output for run in runs))
    assert finished == Counter({str(number): 1 for number in range(20)})
    for run in runs:
        assert "locked" not in run.output
        assert "Traceback" not in run.output
        assert len(_finished(run.output)) >= 1
    counts = _trials(command)
    assert counts["finished"] == counts["total"] == 20


def test_a_terminal_shows_a_live_table(tiny_study: Path, tmp_path: Path) -> None:
    from conftest import COMMAND, environment

    typed = ["script", "-qec", f"{COMMAND} run tiny.toml --trials 4", "/dev/null"]
    shown = subprocess.run(
        typed,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        env={**environment(), "COLUMNS": "120", "TERM": "xterm-256color"},
    )
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.stdout)
    assert shown.returncode == 0, text
    assert re.search(r"4/4\s+━+", text)
    assert re.search(r"trials\s+\d complete\s+\d pruned\s+0 failed\s+0 running\s+0 waiting", text)
    assert re.search(r"trial\s+outcome\s+val_accuracy\s+epochs\s+seconds\s+hyperparameters", text)
    assert re.search(r"0\s+complete\s+0\.\d{4}\s+4\s+\d+\.\d\s+learning_rate=", text)
    assert "Done: 4 of 4 trials are finished." in text


def test_real_kmnist_is_searched_from_packed_files_without_any_test_set(
    real_data_dir: Path, tmp_path: Path, command: Run
) -> None:
    raw = tmp_path / "images" / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        (raw / name).symlink_to(real_data_dir / "KMNIST" / "raw" / name)
    ran = command("run", "kmnist-cpu", "--trials", "1", "--epochs", "1", "--data-dir", "images", "--json")
    assert ran.returncode == 0, ran.stderr
    best = json.loads(ran.stdout)["best"]
    assert best["val_accuracy"] > 0.75
    assert "kmnist, 50,000 training images" in ran.stderr
