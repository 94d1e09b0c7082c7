"""Curves for TensorBoard, read again by TensorBoard's own reader."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import kmnist_search as ks

Invoke = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("one_thread")

CURVES = ["train_accuracy", "train_loss", "val_accuracy", "val_loss"]


def _read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_each_trial_has_its_curves_and_its_hyperparameters(invoke: Invoke, tmp_path: Path) -> None:
    arguments = ("--trials", "3", "--epochs", "3", "--workers", "1", "--set", "study.pruner=none")
    ran = invoke("run", "tiny.toml", *arguments, "--tensorboard", "curves")
    assert ran.exit_code == 0, ran.output
    folders = sorted((tmp_path / "curves" / "tiny").iterdir())
    assert [folder.name for folder in folders] == ["trial-0000", "trial-0001", "trial-0002"]
    curves = ks.Study.open("tiny").curves()
    for number, folder in enumerate(folders):
        found = _read(folder)
        assert sorted(set(found.Tags()["scalars"]) - {"final/val_accuracy"}) == CURVES
        of_trial = curves[curves["number"] == number]
        for name in CURVES:
            read = {point.step: point.value for point in found.Scalars(name)}
            assert read == pytest.approx(dict(zip(of_trial["epoch"], of_trial[name], strict=True)))
        assert "_hparams_/session_start_info" in found.summary_metadata


def test_a_trial_that_resumes_goes_on_where_its_curves_ended(invoke: Invoke, tmp_path: Path) -> None:
    run = ("run", "tiny.toml", "--trials", "1", "--epochs", "4000", "--workers", "1", "--tensorboard", "curves")
    for _ in range(2):
        ran = invoke(*run, "--timeout", "2s")
        assert "Time is up" in ran.output
    assert "trial 0 resumes after epoch" in ran.output
    steps = [point.step for point in _read(tmp_path / "curves" / "tiny" / "trial-0000").Scalars("val_loss")]
    assert steps == sorted(set(steps))
    assert steps[0] == 1


def test_without_the_package_the_option_says_how_to_get_it(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    refused = invoke("run", "tiny.toml", "--tensorboard", "curves")
    assert refused.exit_code == 2
    assert "--tensorboard needs a package: pip install 'kmnist-search[tensorboard]'" in refused.output
    assert not (tmp_path / "kmnist-search.db").exists()
    assert not (tmp_path / "curves").exists()
