"""The live view of a run, as a terminal shows it."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kmnist_search.engine.replica import Epoch
from kmnist_search.host.signals import StopSignals
from kmnist_search.run.options import RunOptions
from kmnist_search.run.submission import prepare
from kmnist_search.study_file.parser import load
from kmnist_search.terminal.run_progress import RunView, follow
from kmnist_search.wording import shown_params
from kmnist_search.worker import trial_run
from kmnist_search.worker.events import (
    DatabaseAway,
    DatabaseBack,
    EpochDone,
    Outcome,
    RunWarning,
    Stopping,
    TrialEnded,
    TrialStarted,
    WithinEpoch,
)


@pytest.fixture
def view(tiny_study: Path, storage_url: str, tmp_path: Path) -> RunView:
    options = RunOptions(storage_url=storage_url, trials=2, data_dir=tmp_path, device="cpu")
    search = prepare(load(tiny_study), options)
    worker, _ = search.work(StopSignals())
    return RunView(search, lambda: search.seen_by(worker))


def _shown(view: RunView, *, width: int = 100, height: int = 40) -> str:
    console = Console(width=width, height=height)
    with console.capture() as shown:
        console.print(view)
    return shown.get()


def test_a_database_that_is_away_is_told_until_it_is_back(view: RunView) -> None:
    assert "database" not in _shown(view)
    view.take(DatabaseAway(reason="Connection refused"))
    assert "database the database is away, trying again: Connection refused" in _shown(view)
    view.take(DatabaseBack(seconds=3.0))
    assert "database" not in _shown(view)


def test_a_stop_that_waits_for_the_database_is_told(view: RunView) -> None:
    view.take(Stopping(seconds=4.0))
    assert "now      stopping, waiting at most 4 s for the database" in _shown(view)


def _epoch(number: int, val_accuracy: float) -> Epoch:
    return Epoch(number=number, train_loss=0.5, train_accuracy=0.8, val_loss=0.4, val_accuracy=val_accuracy)


def _ended(number: int, outcome: Outcome = "complete", reason: str = "") -> TrialEnded:
    figures: dict[str, Any] = {"value": 0.9, "epochs": 4, "seconds": 1.0}
    return TrialEnded(number=number, params={"dim": 8 + number}, outcome=outcome, reason=reason, **figures)


def test_each_trial_at_work_has_a_line_of_its_own_and_then_is_among_the_results(view: RunView) -> None:
    assert "now      claiming a trial ..." in _shown(view)
    for number in (0, 1):
        view.take(TrialStarted(number=number, params={"dim": 8 + number}, epochs_done=0))
    view.take(EpochDone(number=1, epoch=_epoch(3, 0.9)))
    shown = _shown(view)
    assert "2 trials running here, val_accuracy by epoch" in shown
    assert re.search(r"^ trial  0  epoch 0/4 +0 s +dim=8$", shown, re.MULTILINE)
    assert re.search(r"^ trial  1  epoch 3/4  90\.00 %  0 s  .  dim=9$", shown, re.MULTILINE)
    assert "claiming" not in shown
    view.take(_ended(1))
    shown = _shown(view)
    assert "1 trial running" in shown
    assert " trial  1  complete  90.00 %  4 epochs  1 s  dim=9\n" in shown


def test_a_trial_within_a_long_epoch_shows_how_far_it_is(view: RunView) -> None:
    view.take(TrialStarted(number=0, params={"dim": 8}, epochs_done=2))
    assert "epoch 2/4 " in _shown(view)
    view.take(WithinEpoch(number=0, share=0.4))
    assert "epoch 2/4 + 40 %" in _shown(view)
    view.take(EpochDone(number=0, epoch=_epoch(3, 0.9)))
    assert "epoch 3/4 " in _shown(view)
    assert "+" not in _shown(view)


def test_many_trials_at_work_leave_room_for_results_and_are_counted(view: RunView) -> None:
    view.take(_ended(40, "failed", "out of memory"))
    for number in range(32):
        view.take(TrialStarted(number=number, params={"dim": 8}, epochs_done=0))
    lines = _shown(view, width=80, height=24).splitlines()
    assert len(lines) <= 23  # the cursor is on the last one
    assert max(map(len, lines)) <= 80
    shown = "\n".join(lines)
    assert "32 trials running here" in shown
    assert f" and {32 - shown.count('epoch 0/4')} more" in shown
    assert " trial  40  failed  " in shown
    assert "out of memory" in shown


def test_a_long_epoch_tells_how_far_it_is_in_a_real_training(
    tiny_study: Path, storage_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_run, "SIGN_OF_LIFE_SECONDS", 0.0)
    search = prepare(load(tiny_study), RunOptions(storage_url=storage_url, trials=1, data_dir=tmp_path, device="cpu"))
    _, events = search.work(StopSignals())
    shares: dict[int, list[float]] = {}
    epochs = 0
    for event in events:
        match event:
            case EpochDone():
                epochs += 1
            case WithinEpoch():
                shares.setdefault(epochs, []).append(event.share)
    assert sorted(shares) == [0, 1, 2, 3]
    for of_epoch in shares.values():
        assert of_epoch == sorted(of_epoch)
        assert 0 < of_epoch[0] < of_epoch[-1] <= 1


def test_a_plain_line_has_the_hyperparameters_of_its_own_trial(
    tiny_study: Path, storage_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = RunOptions(storage_url=storage_url, trials=5, data_dir=tmp_path, device="cpu")
    search = prepare(load(tiny_study, overrides=["study.pruner=none"]), options)
    worker, events = replace(search, options=replace(options, per_gpu=3)).work(StopSignals())
    follow(Console(width=200), search, partial(search.seen_by, worker), events)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    for trial in search.study.optuna.trials:
        (line,) = [line for line in lines if f" trial {trial.number} complete " in line]
        assert line.endswith(f"  {shown_params(trial.params)}")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_warning_is_a_line_that_stays(view: RunView, is_terminal: bool) -> None:
    console = Console(width=200, force_terminal=is_terminal)
    told = iter([RunWarning(text="the dashboard lacks its pictures")])
    with console.capture() as shown:
        follow(console, view.search, view._seen, told)
    assert shown.get().count("the dashboard lacks its pictures") == 1
