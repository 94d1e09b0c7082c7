"""`kmnist-search report` on real studies: what it writes, what it refuses, and studies that lack nearly everything."""

import json
import re
import socket
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from kmnist_search.database.storage import Storage, open_storage
from kmnist_search.report.page import study_report
from kmnist_search.study.opening import open_study
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.parser import load
from kmnist_search.study_file.schema import PlanFile, PlanTable
from kmnist_search.study_file.space import IntRange

if TYPE_CHECKING:
    from click.testing import Result

Invoke = Callable[..., "Result"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(f"sqlite:///{tmp_path / 'kmnist-search.db'}", create=True)


@pytest.fixture
def study(storage: Storage, tiny_study: Path) -> SearchStudy:
    """A study without trials."""
    return open_study(storage, load(tiny_study))


def test_a_report_is_one_page_named_after_its_study(invoke: Invoke) -> None:
    assert invoke("run", "tiny.toml", "--trials", 3).exit_code == 0
    result = invoke("report")
    assert (result.exit_code, result.stdout) == (0, "report on study tiny is in tiny-report.html\n")
    page = Path("tiny-report.html").read_text()
    assert page.count("plotly.js v") == 1
    assert "learning_rate" in page
    assert not list(Path().glob(".*.part"))


def test_a_report_tells_how_many_of_the_pruned_trials_are_paused(invoke: Invoke) -> None:
    pausing = "study.pruner={name = 'asha', min_epochs = 1, reduction_factor = 2}"
    assert invoke("run", "tiny.toml", "--trials", 6, "--set", pausing).exit_code == 0
    paused = json.loads(invoke("status", "--json").stdout)["paused"]
    assert paused > 0
    assert invoke("report").exit_code == 0
    assert f"pruned, {paused} of them paused" in Path("tiny-report.html").read_text()


def test_a_report_says_what_was_searched_how_and_where(invoke: Invoke) -> None:
    assert invoke("run", "tiny.toml", "--trials", 3, "--set", "constraints.max_parameters=100000").exit_code == 0
    assert invoke("report").exit_code == 0
    searched = _section(Path("tiny-report.html").read_text(), "searched")
    facts = dict(re.findall(r'<tr><th scope="row">([^<]*)</th><td class="text">([^<]*)</td></tr>', searched))
    assert facts["data set"] == "scikit-learn&#39;s digits"
    assert facts["images"] == "1,197 to train on, 240 to validate with; split by seed 0"
    assert facts["epochs"] == "at most 4 a trial"
    assert facts["sampler"] == "tpe: TPE proposes configurations after 3 random trials"
    assert facts["pruner"].startswith("successive_halving: the successive halving pruner ends trials after 1 epoch")
    assert facts["constraints"] == "at most 100,000 parameters"
    assert facts["seed"] == "0"
    assert f"torch {version('torch')}, optuna {version('optuna')}" in facts["versions"]
    assert '<tr><th scope="row">learning_rate</th><td class="text">0.001 to 0.01</td><td>log</td></tr>' in searched
    assert '<tr><th scope="row">dim</th><td class="text">8, 16</td><td>ordered list</td></tr>' in searched
    assert "<code>batch_size</code>&nbsp;128. All other settings have their defaults." in searched
    assert f'<th scope="row">{socket.gethostname()}</th><td>CPU, threads: 1</td>' in searched


def test_conditions_of_hyperparameters_have_a_column_of_their_own(storage: Storage, tiny_study: Path) -> None:
    only_sgd = "space.momentum={ low = 0.5, high = 0.9, when = { optimizer = 'sgd' } }"
    overrides = ["space.optimizer={ choices = ['sgd', 'adamw'] }", only_sgd]
    study = open_study(storage, load(tiny_study, overrides=overrides))
    study.optuna.add_trial(create_trial(value=0.5))
    searched = _section(study_report(study), "searched")
    assert '<td>linear</td><td class="text">if optimizer is sgd</td>' in searched
    assert '<td>log</td><td class="text">always</td>' in searched
    assert "not recorded" in searched  # neither versions nor the digest of the images
    assert "The trials do not say where they were trained." in searched


def test_planned_trainings_have_no_search_space(storage: Storage) -> None:
    planned = PlanTable(name="tiny-retraining", plan="best", retrains="tiny")
    study = open_study(storage, PlanFile(study=planned, space={"repeat": IntRange(low=0, high=10**9)}))
    study.optuna.add_trial(create_trial(value=0.5))
    searched = _section(study_report(study), "searched")
    assert '<td class="text">kmnist-search best tiny --retrain</td>' in searched
    assert "Nothing was searched." in searched
    assert "repeat" not in searched


def _section(page: str, name: str) -> str:
    return page.partition(f'<section id="{name}">')[2].partition("</section>")[0]


def test_a_file_that_is_there_is_kept_unless_forced(invoke: Invoke, study: SearchStudy) -> None:
    study.optuna.add_trial(create_trial(value=0.5))
    Path("mine.html").write_text("mine")
    refused = invoke("report", "tiny", "--out", "mine.html")
    assert refused.exit_code == 2
    assert refused.stderr == (
        "Error: mine.html is there already. Choose another file with --out, or replace it with --force.\n"
    )
    assert Path("mine.html").read_text() == "mine"
    assert invoke("report", "tiny", "--out", "mine.html", "--force").exit_code == 0
    assert Path("mine.html").read_text().startswith("<!DOCTYPE html>")


def test_a_folder_that_is_not_there_is_named(invoke: Invoke, study: SearchStudy) -> None:
    study.optuna.add_trial(create_trial(value=0.5))
    result = invoke("report", "--out", "nowhere/r.html")
    assert result.exit_code == 2
    assert result.stderr == "Error: nowhere/r.html: cannot be written: No such file or directory.\n"


def test_a_study_of_waiting_trials_has_nothing_to_report(invoke: Invoke, study: SearchStudy) -> None:
    study.fill(4)
    result = invoke("report", "tiny")
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: study 'tiny' has no running or finished trial, so there is nothing to report; 4 are waiting. "
        "See: kmnist-search status tiny\n"
    )
    assert not Path("tiny-report.html").exists()


def test_a_study_with_none_complete_yet_has_a_page_that_says_so(study: SearchStudy) -> None:
    study.optuna.add_trial(create_trial(state=TrialState.RUNNING))
    page = study_report(study)
    assert "No trial is complete yet, so there is no best one." in page
    assert "No trial has reported an epoch yet." in page
    assert "The trials do not say who ran them." in page


def test_trials_without_any_attributes_are_reported(study: SearchStudy) -> None:
    study.optuna.add_trials(
        [
            create_trial(value=0.5),
            create_trial(value=float("inf")),
            create_trial(state=TrialState.PRUNED),
            create_trial(state=TrialState.PRUNED, intermediate_values={1: float("nan")}),
            create_trial(state=TrialState.FAIL),
            create_trial(
                value=0.7,
                params={"learning_rate": 2e-3, "odd": "x"},
                distributions={"learning_rate": FloatDistribution(1e-3, 1e-2), "odd": CategoricalDistribution("xy")},
            ),
            create_trial(
                value=0.8,
                params={"learning_rate": 0.0},
                distributions={"learning_rate": FloatDistribution(0.0, 1.0)},
            ),
        ]
    )
    page = study_report(study)
    assert "The best val_accuracy is <strong>80.00 %</strong>" in page
    assert ">not known</td>" in page  # why one failed


def test_what_comes_from_outside_is_escaped(study: SearchStudy) -> None:
    evil = "<img src=x onerror=alert(1)>"
    study.optuna.add_trial(
        create_trial(
            state=TrialState.FAIL,
            user_attrs={
                "reason": evil,
                "attempts": [
                    {
                        "host": evil,
                        "pid": 1,
                        "began_at": "2026-11-20T10:00:00+00:00",
                        "ended_at": "2026-11-20T10:00:09+00:00",
                        "how": "fail",
                    }
                ],
            },
        )
    )
    page = study_report(study)
    assert evil not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_a_study_of_losses_has_its_lowest_on_top(storage: Storage, tiny_study: Path) -> None:
    study = open_study(storage, load(tiny_study, overrides=["study.metric=val_loss"]))
    study.optuna.add_trials([create_trial(value=0.5), create_trial(value=0.1)])
    assert study.optuna.direction == optuna.study.StudyDirection.MINIMIZE
    assert "The best val_loss is <strong>0.1000</strong>, of trial 1." in study_report(study)
