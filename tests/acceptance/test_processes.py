"""Whole runs as real processes: interrupted, killed, side by side. Afterwards the budget is exact and nothing runs."""

import json
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.support.exact import Look, assert_exact
from tests.support.forked import forks, wait_until

pytestmark = pytest.mark.slow

FINISHED = re.compile(r"^\[\d+/\d+\] trial (\d+) (?:complete|pruned|failed)", re.MULTILINE)


def _finished(*outputs: str) -> Counter[str]:
    return Counter(number for output in outputs for number in FINISHED.findall(output))


def test_interrupted_then_killed_then_started_again_a_run_ends_with_exactly_its_trials(
    tiny_study: Path, tmp_path: Path
) -> None:
    arguments = ("run", "tiny.toml", "--trials", "12", "--set", "train.epochs=6", "--set", "study.pruner=none")
    look = Look(f"sqlite:///{tmp_path / 'kmnist-search.db'}")
    with forks(tmp_path) as start:
        for stop, exit_code in ((signal.SIGINT, 130), (signal.SIGKILL, -9), (signal.SIGTERM, 130)):
            running = start.slowly(*arguments, step_seconds=0.01)
            wait_until(lambda running=running: len(_finished(running.output)) >= 2, running)  # type: ignore[misc]
            running.signal(stop)
            assert running.ended() == exit_code
            if stop != signal.SIGKILL:
                assert "none is left running here. To resume: kmnist-search run tiny.toml --trials 12" in running.output
                assert look.running() == 0
        assert look.states()["COMPLETE"] < 12
        last = start.finished(*arguments)
    assert "12 of 12 trials are finished" in last.output
    assert look.states() == {"COMPLETE": 12}
    assert_exact(look, start.started, trials=12, epochs=6)


def test_runs_side_by_side_share_the_budget_exactly(tiny_study: Path, tmp_path: Path) -> None:
    arguments = ("run", "tiny.toml", "--trials", "20", "--set", "train.epochs=4")
    with forks(tmp_path) as start:
        runs = [start.slowly(*arguments) for _ in range(2)]
        assert [run.ended() for run in runs] == [0, 0], [run.output for run in runs]
    finished = _finished(*(run.output for run in runs))
    assert finished == Counter({str(number): 1 for number in range(20)})
    for run in runs:
        assert "locked" not in run.output
        assert "Traceback" not in run.output
        assert len(_finished(run.output)) >= 1
    states = Look(f"sqlite:///{tmp_path / 'kmnist-search.db'}").states()
    assert states["COMPLETE"] + states["PRUNED"] == states.total() == 20


def test_a_terminal_shows_a_live_table(tiny_study: Path, tmp_path: Path) -> None:
    from tests.support.command import COMMAND, environment

    typed = ["script", "-qec", f"{COMMAND} run tiny.toml --trials 4", "/dev/null"]
    shown = subprocess.run(
        typed,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        env={**environment(), "COLUMNS": "120", "TERM": "xterm-256color"},
    )
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.stdout)
    assert shown.returncode == 0, text
    assert re.search(r"4 of 4 finished\s+━+", text)
    assert re.search(r"trials\s+\d complete\s+\d pruned\s+0 failed\s+0 running\s+0 waiting", text)
    assert re.search(r"latest results ─+", text)
    assert re.search(r"trial +0 +complete +\d+\.\d\d % +4 epochs +\d+(\.\d)? s +learning_rate=", text)
    assert "Done: 4 of 4 trials are finished." in text


def test_real_kmnist_is_searched_from_packed_files_without_any_test_set(real_data_dir: Path, tmp_path: Path) -> None:
    raw = tmp_path / "images" / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        (raw / name).symlink_to(real_data_dir / "KMNIST" / "raw" / name)
    with forks(tmp_path) as start:
        ran = start.finished("run", "kmnist-cpu", "--trials", "1", "--epochs", "1", "--data-dir", "images", "--json")
    told, _, printed = ran.output.partition("\n{")
    assert json.loads("{" + printed)["best"]["val_accuracy"] > 0.75
    assert "kmnist, 50,000 training images" in told
