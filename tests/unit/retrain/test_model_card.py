"""Tests of the model card: it says what was measured, and the commands in it run."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from kmnist_search.config import TrialConfig
from kmnist_search.data.catalog import CLASS_NAMES
from kmnist_search.evaluation.metrics import Metrics
from kmnist_search.retrain.model_card import model_card
from kmnist_search.saved_model import onnx_file
from kmnist_search.saved_model.folder import load_model
from kmnist_search.saved_model.info import ModelInfo

pytestmark = pytest.mark.usefixtures("one_thread")

EPOCH = {"number": 1, "train_loss": 0.5, "train_accuracy": 0.9, "val_loss": 0.4, "val_accuracy": 0.95}
WHEN = "2026-11-21T10:00:00Z"


def metrics(
    dataset: str = "kmnist", *, ledger_recipes: tuple[str, ...] = ("1" * 12,), candidates: int = 2, seeds: int = 2
) -> Metrics:
    """Figures as a retraining writes them, down to a class that was never predicted."""
    candidate: Mapping[str, Any] = {
        "trial": 19,
        "config_digest": "0" * 12,
        "params": {"dim": 32},
        "num_parameters": 96_502,
        "study_val_accuracy": 0.9748,
        "reruns": [],
        "mean_val_accuracy": 0.9721,
        "sd_val_accuracy": 0.001,
        "luck": 0.0027,
    }
    final = {
        "weights_sha256": "a" * 64,
        "seconds": 60.0,
        "epochs": [EPOCH],
        "opened_at": WHEN,
        "test_correct": 9312,
        "test_accuracy": 0.9312,
        "test_loss": 0.3,
    }
    classes = [
        {"label": label, "name": str(name), "precision": 0.91, "recall": 0.92, "f1": 0.915, "images": 1000}
        for label, name in enumerate(CLASS_NAMES[dataset])
    ]
    classes[9] |= {"precision": None, "recall": 0.0, "f1": 0.0}
    return Metrics.model_validate(
        {
            "made_at": WHEN,
            "study": {
                "name": "kmnist-cpu",
                "metric": "val_accuracy",
                "complete": 8,
                "pruned": 12,
                "failed": 0,
                "unfinished": 0,
                "best_trial": 19,
                "best_value": 0.9748,
                "seconds": 300.0,
            },
            "data": {
                "dataset": dataset,
                "train_images": 60_000,
                "test_images": 10_000,
                "train_digest": "b" * 12,
                "test_digest": "c" * 12,
                "mean": 0.19,
                "std": 0.35,
            },
            "candidates": [candidate] * candidates,
            "paired_test": None,
            "recipe": {
                "digest": "1" * 12,
                "trial": 19,
                "config": TrialConfig().model_dump(mode="json"),
                "config_digest": "0" * 12,
                "epochs": 5,
                "seeds": list(range(seeds)),
                "frozen_at": WHEN,
            },
            "test": {
                "mean_accuracy": 0.9305,
                "seeds_interval": [0.9288, 0.9322] if seeds > 1 else None,
                "sampling_interval": [0.9254, 0.9353],
                "val_accuracy": 0.9721,
                "gap": 0.0416,
                "models": [final | {"seed": seed} for seed in range(seeds)],
                "kept": {
                    "seed": 0,
                    "test_accuracy": 0.9312,
                    "confusion": [[1000 if row == column else 0 for column in range(10)] for row in range(10)],
                    "classes": classes,
                    "calibration": [],
                    "calibration_error": 0.0234,
                },
            },
            "ledger": [
                {
                    "opened_at": WHEN,
                    "recipe_digest": digest,
                    "seed": 0,
                    "weights_sha256": "a" * 64,
                    "correct": 9300,
                    "accuracy": 0.93,
                    "loss": 0.25,
                }
                for digest in ledger_recipes
            ],
            "references": [],
            "reproduction": {
                "command": "kmnist-search retrain kmnist-cpu",
                "versions": {"kmnist-search": "0.1.0", "torch": "2.15.0"},
                "machine": "a virtual machine, 2 cores",
                "device": "cpu",
                "git_commit": None,
            },
        }
    )


@pytest.fixture
def info(model_dir: Path) -> ModelInfo:
    return load_model(model_dir).info


def of(info: ModelInfo, dataset: str) -> ModelInfo:
    return info.model_copy(update={"dataset": dataset, "classes": CLASS_NAMES[dataset]})


def lines(card: str) -> str:
    """The card without its line breaks, which fall where they may."""
    return " ".join(card.split())


def test_the_card_begins_with_the_header_that_hugging_face_reads(info: ModelInfo) -> None:
    _, header, body = model_card(metrics(), of(info, "kmnist")).split("---\n", maxsplit=2)
    fields = yaml.safe_load(header)
    assert fields["pipeline_tag"] == "image-classification"
    assert fields["language"] == "ja"
    (result,) = fields["model-index"][0]["results"]
    assert result["dataset"] == {"name": "kmnist", "type": "kmnist", "split": "test"}
    assert [metric["value"] for metric in result["metrics"]] == [0.9312, 0.9305]
    assert body.startswith("\n# A patch-MLP for kmnist\n")


def test_the_card_gives_the_figures_with_their_intervals(info: ModelInfo) -> None:
    card = model_card(metrics(), of(info, "kmnist"))
    for line in (
        "| accuracy of this model (seed 0) | 93.12 % |",
        "| mean accuracy of 2 trainings by the same recipe | 93.05 % |",
        "| 95 % interval of the mean over seeds (Student's t) | 92.88 % to 93.22 % |",
        "| 95 % interval for this number of test images (Wilson) | 92.54 % to 93.53 % |",
        "| validation accuracy of the recipe | 97.21 % |",
        "| お o | 91.00 % | 92.00 % | 91.50 % | 1000 |",
        "| を wo | - | 0.00 % | 0.00 % | 1000 |",
    ):
        assert line in card.splitlines()
    assert "Validation promised 4.16 points more than the test images gave." in lines(card)


def test_one_seed_has_no_interval_over_seeds(info: ModelInfo) -> None:
    card = model_card(metrics(seeds=1, candidates=1), info)
    assert "Student" not in card
    assert "| mean accuracy of 1 training by the same recipe |" in card
    assert "Its best configuration, trial 19, became the recipe." in lines(card)


def test_the_card_says_how_often_the_test_set_was_looked_at(info: ModelInfo) -> None:
    once = lines(model_card(metrics(), info))
    assert "For this study, the test set was looked at 1 time, by models of 1 recipe. ## Use" in once
    more = lines(model_card(metrics(ledger_recipes=("1" * 12, "1" * 12, "2" * 12)), info))
    assert "was looked at 3 times, by models of 2 recipes. With more than one recipe, the later figures" in more


@pytest.mark.parametrize(
    ("dataset", "attribution"),
    [
        ("kmnist", '"KMNIST Dataset" (created by CODH), adapted from "Kuzushiji Dataset" (created by NIJL and others)'),
        ("mnist", "Yann LeCun"),
        ("fashion-mnist", "Zalando Research"),
        ("digits", "UCI Machine Learning Repository"),
    ],
)
def test_every_data_set_has_its_own_source_and_limits(info: ModelInfo, dataset: str, attribution: str) -> None:
    card = lines(model_card(metrics(dataset), of(info, dataset)))
    assert attribution in card
    assert all(name.text in card for name in CLASS_NAMES[dataset])
    assert ("hiragana" in card, "language: ja" in card) == (dataset == "kmnist", dataset == "kmnist")


def test_what_the_card_tells_to_run_runs(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(model_dir, tmp_path / "model"))
    saved = load_model(folder)
    onnx_file.write(saved, folder / "model.onnx")
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 12:16] = 255
    for name in ("character.png", "character-28x28.png"):
        Image.fromarray(image).save(folder / name)
    monkeypatch.chdir(folder)
    python, onnx = re.findall(r"```python\n(.*?)```", model_card(metrics("digits"), saved.info), re.DOTALL)
    (expected,) = saved.predict(image[None])
    exec(python, {})
    assert capsys.readouterr().out == f"{expected.label} {expected.name} {expected.probability}\n"
    exec(onnx, {})
    label, probability = capsys.readouterr().out.split()
    assert label == expected.name.text
    assert float(probability) == pytest.approx(expected.probability, abs=1e-5)
