"""`Study`: what a program or a notebook does with a study, on real databases."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

import kmnist_search as ks
from kmnist_search.errors import ConfigError, InputError, StudyChangedError, StudyFileError, StudyNotFoundError
from kmnist_search.study_file.parser import load
from tests.support.command import CHECKOUT, environment

Invoke = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = {"study.pruner": "none", "train.epochs": 2}


@pytest.fixture
def made(tiny_study: Path, any_storage_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ks.Study:
    """A study of four trials that wait."""
    monkeypatch.chdir(tmp_path)
    return ks.Study.create(tiny_study, trials=4, settings=SETTINGS, storage=any_storage_url)


def test_a_study_is_created_run_looked_at_and_retrained(
    made: ks.Study, any_storage_url: str, invoke: Invoke, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "0 of 4 trials finished; best: no trial is complete yet" in repr(made)
    assert made.trials().empty
    assert list(made.trials().columns)[-2:] == ["learning_rate", "dim"]
    assert list(made.curves().columns)[:2] == ["number", "epoch"]
    assert made.run(workers=1) == "budget"
    assert "[4/4] trial 3 complete" in capsys.readouterr().out

    trials = made.trials()
    assert list(trials.columns[:6]) == ["number", "state", "val_accuracy", "epochs", "seconds", "parameters"]
    assert list(trials["number"]) == [0, 1, 2, 3]
    assert set(trials["state"]) == {"complete"}
    assert set(trials["epochs"]) == {2}
    assert (trials["seconds"] > 0).all()
    assert {trial.params["learning_rate"] for trial in made.optuna.trials} == set(trials["learning_rate"])

    curves = made.curves()
    assert [tuple(row) for row in curves[["number", "epoch"]].to_numpy()] == [(n, e) for n in range(4) for e in (1, 2)]
    last = curves[curves["epoch"] == 2].set_index("number")["val_accuracy"]
    assert list(last) == list(trials["val_accuracy"])

    best = made.best(2)
    assert list(best["val_accuracy"]) == sorted(trials["val_accuracy"], reverse=True)[:2]
    assert f"trial {best['number'][0]}" in repr(made)
    assert "<table" in made._repr_html_()

    winner = made.retrain(models=1, top=1, workers=1)
    figures = json.loads((winner.folder / "metrics.json").read_text())
    assert winner.test_accuracy == figures["test"]["mean_accuracy"]
    assert winner.report.is_file()
    image = np.zeros((28, 28), np.uint8)
    image[8:20, 12:16] = 255
    (by_pixels,) = winner.model.predict(image[None])
    (by_image,) = winner.model.predict(Image.fromarray(image))
    assert by_pixels.label == by_image.label
    assert f"{winner.test_accuracy:.2%}".replace("%", " %") in repr(winner)

    shown = invoke("best", "--json", "--storage", any_storage_url)
    assert json.loads(shown.output)["top"][0]["number"] == best["number"][0]


def test_a_study_that_is_there_is_opened_and_may_get_more_trials(made: ks.Study, any_storage_url: str) -> None:
    made.run(workers=1)
    again = ks.Study.create("tiny.toml", trials=5, settings=SETTINGS, storage=any_storage_url)
    assert "4 of 5 trials finished" in repr(again)
    again.run(workers=1)
    opened = ks.Study.open(storage=any_storage_url)
    assert opened.name == "tiny"
    opened.run(trials=6, workers=1)
    assert len(opened.trials()) == 6
    assert opened.run(workers=1) == "budget"
    assert len(opened.trials()) == 6
    with pytest.raises(StudyChangedError, match="epochs"):
        ks.Study.create("tiny.toml", settings={**SETTINGS, "train.epochs": 3}, storage=any_storage_url)
    with pytest.raises(StudyNotFoundError, match="tiny"):
        ks.Study.open("other", storage=any_storage_url)


def test_a_study_file_may_be_tables_or_one_that_was_read(
    made: ks.Study, tiny_study: Path, any_storage_url: str
) -> None:
    tables = {"data": {"dataset": "digits"}, "space": {"learning_rate": {"low": 1e-3, "high": 0.1}}}
    assert ks.Study.create(tables, name="rates", storage=any_storage_url).name == "rates"
    assert tables == {"data": {"dataset": "digits"}, "space": {"learning_rate": {"low": 1e-3, "high": 0.1}}}
    same = ks.Study.create(load(tiny_study), trials=4, settings=SETTINGS, storage=any_storage_url)
    assert same.name == made.name
    with pytest.raises(StudyFileError, match=r"\[space\].*learning_rat"):
        ks.Study.create({"space": {"learning_rat": {"low": 1e-3, "high": 0.1}}}, storage=any_storage_url)


def test_every_chart_is_drawn_in_colours_or_says_what_is_missing(made: ks.Study) -> None:
    with pytest.raises(ConfigError, match="nothing to draw yet"):
        made.plot("history")
    made.run(workers=1)
    for name in ("history", "seconds", "size", "importance", "parallel", "curves", "timeline"):
        drawn = made.plot(name)
        assert drawn.data
        assert "var(--" not in drawn.to_json()
    with pytest.raises(ConfigError, match="There are: history, seconds"):
        made.plot("histori")  # type: ignore[arg-type]


def test_an_interrupt_hands_the_trial_back_and_the_next_run_resumes_it(made: ks.Study) -> None:
    found = made._found

    def interrupt() -> None:
        while not found.counts().complete:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt, match="resumes"):
        made.run(trials=200, workers=1)
    thread.join()
    counts = found.counts()
    assert counts.running == 0
    assert 0 < counts.complete < 200
    assert made.run(workers=1, timeout=0.01) == "timeout"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda study: study.run(workers=0), r"run\(\): workers: input should be greater than or equal to 1, got 0"),
        (lambda study: study.run(trials="many"), r"run\(\): trials: .* got 'many'"),
        (lambda study: study.run(timeout=-1), r"run\(\): timeout: input should be greater than 0"),
        (lambda study: study.run(device="gpu"), "gpu"),
        (lambda study: study.retrain(epochs=0), r"retrain\(\): epochs"),
        (lambda study: study.retrain(top=0), r"retrain\(\): top"),
        (lambda study: study.best(0), r"best\(\): top"),
        (lambda study: study.enqueue({}), "names no hyperparameter. There are: learning_rate, dim"),
        (lambda study: study.enqueue("learning_rate=1"), r"enqueue\(\)"),
        (lambda study: ks.Study.create("tiny.toml", trials=0), r"create\(\): trials"),
        (lambda study: ks.Study.open({}), r"open\(\): "),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments_are_refused_before_any_work(
    made: ks.Study, wrong: Callable[[ks.Study], object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        wrong(made)
    assert made.trials().empty


def test_a_study_runs_in_a_thread_too(made: ks.Study) -> None:
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(made.run(workers=1)))
    thread.start()
    thread.join(240)
    assert ended == ["budget"]


def test_a_script_without_a_guard_may_use_several_processes(tiny_study: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import kmnist_search as ks\nprint('begins')\nprint(ks.Study.create('tiny.toml', trials=4).run(workers=2))\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("begins") == 1
    assert done.stdout.splitlines()[-1] == "budget"


def test_the_names_of_the_package_are_those_of_the_page_and_bring_no_torch_before_they_are_used() -> None:
    page = (CHECKOUT / "docs" / "python.md").read_text()
    assert dir(ks) == sorted(ks.__all__)
    for name in set(ks.__all__) - {"__version__"}:
        assert f".{name}\n" in page
    code = "import sys, kmnist_search; print(dir(kmnist_search), 'torch' in sys.modules, kmnist_search.__version__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert " False " in said.stdout
