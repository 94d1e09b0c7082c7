"""The live view of a run, as a terminal shows it."""

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
from kmnist_search.worker.events import (
    DatabaseAway,
    DatabaseBack,
    EpochDone,
    RunWarning,
    Stopping,
    TrialEnded,
    TrialStarted,
)


@pytest.fixture
def view(tiny_study: Path, storage_url: str, tmp_path: Path) -> RunView:
    options = RunOptions(storage_url=storage_url, trials=2, data_dir=tmp_path, device="cpu")
    search = prepare(load(tiny_study), options)
    worker, _ = search.work(StopSignals())
    return RunView(search, lambda: search.seen_by(worker))


def _shown(view: RunView) -> str:
    console = Console(width=100)
    with console.capture() as shown:
        console.print(view)
    return shown.get()


def test_a_database_that_is_away_is_told_until_it_is_back(view: RunView) -> None:
    assert "database" not in _shown(view)
    view.take(DatabaseAway(reason="Connection refused"))
    assert "database  the database is away, trying again: Connection refused" in _shown(view)
    view.take(DatabaseBack(seconds=3.0))
    assert "database" not in _shown(view)


def test_a_stop_that_waits_for_the_database_is_told(view: RunView) -> None:
    view.take(Stopping(seconds=4.0))
    assert "now     stopping, waiting at most 4 s for the database" in _shown(view)


def _epoch(number: int, val_accuracy: float) -> Epoch:
    return Epoch(number=number, train_loss=0.5, train_accuracy=0.8, val_loss=0.4, val_accuracy=val_accuracy)


def test_each_trial_at_work_has_a_line_of_its_own(view: RunView) -> None:
    assert "now     claiming a trial ..." in _shown(view)
    for number in (0, 1):
        view.take(TrialStarted(number=number, params={"dim": 8 + number}, epochs_done=0))
    view.take(EpochDone(number=1, epoch=_epoch(3, 0.9)))
    shown = _shown(view)
    assert "now     trial 0" in shown
    assert "        trial 1  epoch 3/4  val_accuracy 90.00 %  train_loss 0.5000" in shown
    assert "dim=" not in shown
    ended: dict[str, Any] = {"outcome": "complete", "value": 0.9, "reason": "", "epochs": 4, "seconds": 1.0}
    view.take(TrialEnded(number=1, params={"dim": 9}, **ended))
    shown = _shown(view)
    assert "trial 1" not in shown
    assert "dim=9" in shown  # among those that have ended
    assert "        dim=8" in shown  # of the one that is alone now


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
