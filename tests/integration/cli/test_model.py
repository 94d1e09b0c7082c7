"""The commands for a saved model as a user meets them: tables, CSV, JSON, files, messages, exit codes."""

import csv
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import Result
from PIL import Image

from kmnist_search.config import DataConfig
from kmnist_search.data import search_data
from kmnist_search.data.test_set import open_test_set
from kmnist_search.saved_model.folder import load_model
from kmnist_search.saved_model.model import Prediction
from kmnist_search.wording import percent
from tests.support.models import save_model

Invoke = Callable[..., Result]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four digits, one of them large and dark on light, and of a file that is no image."""
    folder = tmp_path_factory.mktemp("digits") / "scans"
    folder.mkdir()
    digits = search_data.load(DataConfig(dataset="digits"), Path())
    images = [Image.fromarray(image) for image in digits.val_images[:4].numpy()]
    for name, image in zip(("b.png", "a.PNG", "c.jpg"), images[:3], strict=True):
        image.save(folder / name, quality=95)
    Image.fromarray(255 - np.asarray(images[3].resize((150, 150)))).convert("RGB").save(folder / "d.jpeg", quality=95)
    (folder / "notes.txt").write_text("no image")
    return folder


def predicted(model_dir: Path, scans: Path) -> list[Prediction]:
    return load_model(model_dir).predict([scans / name for name in ("a.PNG", "b.png", "c.jpg", "d.jpeg")])


def refused(result: Result, message: str) -> None:
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {message}\n"


def test_the_images_of_a_folder_are_shown_by_name_with_their_characters(
    invoke: Invoke, model_dir: Path, scans: Path
) -> None:
    result = invoke("predict", model_dir, scans)
    assert (result.exit_code, result.stderr) == (0, "")
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["file", "character", "probability"]
    found = predicted(model_dir, scans)
    assert [line.split() for line in lines] == [
        [str(scans / name), prediction.name.text, *percent(prediction.probability).split()]
        for name, prediction in zip(("a.PNG", "b.png", "c.jpg", "d.jpeg"), found, strict=True)
    ]
    assert len({len(line.rstrip()) for line in lines}) == 1  # the probabilities are aligned


def test_csv_is_for_programs(invoke: Invoke, model_dir: Path, scans: Path) -> None:
    result = invoke("predict", model_dir, scans / "d.jpeg", scans, "--csv")
    assert result.stdout.splitlines()[0] == "file,label,character,reading,probability"
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["file"] for row in rows] == [
        str(scans / name) for name in ("d.jpeg", "a.PNG", "b.png", "c.jpg", "d.jpeg")
    ]
    assert [int(row["label"]) for row in rows[1:]] == [each.label for each in predicted(model_dir, scans)]
    assert [row["character"] for row in rows] == [row["label"] for row in rows]


def test_json_is_for_programs(invoke: Invoke, model_dir: Path, scans: Path) -> None:
    (row,) = json.loads(invoke("predict", model_dir, scans / "a.PNG", "--json").stdout)
    first = predicted(model_dir, scans)[0]
    assert row == {
        "file": str(scans / "a.PNG"),
        "label": first.label,
        "character": first.name.text,
        "reading": "",
        "probability": round(first.probability, 6),
    }


def test_a_japanese_character_is_shown_with_its_reading(
    invoke: Invoke, tmp_path: Path, model_dir: Path, scans: Path
) -> None:
    saved = load_model(model_dir)
    save_model(
        tmp_path / "hiragana",
        saved.classifier.model,
        dataset="kmnist",
        mean=saved.info.mean,
        std=saved.info.std,
        config_digest=saved.info.config_digest,
        recipe_digest=saved.info.recipe_digest,
        seed=0,
    )
    header, line = invoke("predict", "hiragana", scans / "a.PNG").stdout.splitlines()
    assert header.split() == ["file", "character", "reading", "probability"]
    (expected,) = load_model(tmp_path / "hiragana").predict([scans / "a.PNG"])
    assert line.split()[1:3] == [expected.name.text, expected.name.reading]


def test_a_long_path_is_not_cut_where_the_output_is_no_terminal(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, model_dir: Path, scans: Path
) -> None:
    far = tmp_path / ("x" * 100) / ("y" * 100)
    far.mkdir(parents=True)
    shutil.copy(scans / "a.PNG", far / "a.png")
    ran = command("predict", str(model_dir), str(far))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[1].startswith(f"{far / 'a.png'}  ")


def test_the_test_set_is_predicted_without_a_word_of_the_truth(invoke: Invoke, model_dir: Path) -> None:
    rows = json.loads(invoke("predict", model_dir, "--dataset", "test", "--json").stdout)
    sealed = open_test_set("digits", Path())
    assert [row["file"] for row in rows] == [f"test[{position}]" for position in range(360)]
    labels = np.array([row["label"] for row in rows])
    assert (labels == sealed.labels.numpy()).mean() > 0.8
    shown = invoke("predict", model_dir, "--dataset", "test").stdout
    assert len(shown.splitlines()) == 361
    assert "accuracy" not in shown


def test_all_images_are_checked_before_anything_is_printed(invoke: Invoke, model_dir: Path, scans: Path) -> None:
    refused(invoke("predict", model_dir, scans, "none.png"), "none.png: cannot be read: No such file or directory.")
    refused(
        invoke("predict", model_dir, scans, scans / "notes.txt", "--csv"),
        f"{scans / 'notes.txt'}: is not a PNG or JPEG image.",
    )


def test_a_folder_without_images_is_refused(invoke: Invoke, model_dir: Path, tmp_path: Path, scans: Path) -> None:
    shutil.copytree(scans, tmp_path / "outer" / "inner")
    refused(
        invoke("predict", model_dir, scans, "outer"),
        "outer: there is no PNG or JPEG file in this folder (folders inside it are not searched).",
    )


def test_what_is_no_model_is_refused(invoke: Invoke, model_dir: Path, scans: Path) -> None:
    refused(invoke("predict", "none", scans), "none: is not the folder of a saved model. It has no config.json.")
    refused(
        invoke("export", model_dir.parent, "--format", "onnx"),
        f"{model_dir.parent}: is not the folder of a saved model. Did you mean {model_dir}?",
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "name images or folders of images, or --dataset test: one of them."),
        (("a.png", "--dataset", "test"), "name images or folders of images, or --dataset test: not both."),
        (("a.png", "--json", "--csv"), "--json and --csv exclude each other."),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    invoke: Invoke, model_dir: Path, arguments: tuple[str, ...], problem: str
) -> None:
    result = invoke("predict", model_dir, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(f"Error: {problem}\n")


def test_the_help_says_what_a_comparison_with_the_truth_would_be(invoke: Invoke) -> None:
    help_ = " ".join(invoke("predict", "--help").stdout.split())
    assert "to compare them with the truth is a look at the test set that no ledger counts." in help_


@pytest.mark.slow
def test_an_export_says_where_it_is_and_nothing_else(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, model_dir: Path, scans: Path
) -> None:
    ran = command("export", str(model_dir), "--format", "onnx")
    size = (tmp_path / "model.onnx").stat().st_size
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"{model_dir} is in model.onnx ({size:,} bytes), and predicts the same there\n"
    image = np.asarray(Image.open(scans / "a.PNG"))[None]
    (probabilities,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(["probabilities"], {"images": image})
    assert int(np.argmax(np.asarray(probabilities))) == predicted(model_dir, scans)[0].label


def test_an_export_is_named_by_its_format_and_written_over_only_by_force(
    invoke: Invoke, tmp_path: Path, model_dir: Path
) -> None:
    export = ("export", model_dir, "--format", "safetensors")
    assert invoke(*export).exit_code == 0
    before = (tmp_path / "model.safetensors").read_bytes()
    refused(invoke(*export), "model.safetensors: is there already. Choose another --out, or --force.")
    assert invoke(*export, "--out", "other.bin").exit_code == 0
    (tmp_path / "other.bin").write_bytes(b"")
    assert invoke(*export, "--out", "other.bin", "--force").exit_code == 0
    assert len((tmp_path / "other.bin").read_bytes()) > len(before) * 0.9


def test_a_format_that_is_not_written_is_refused_with_those_that_are(invoke: Invoke, model_dir: Path) -> None:
    result = invoke("export", model_dir, "--format", "torchscript")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'torchscript' is not one of 'onnx', 'safetensors'." in result.stderr


def test_images_of_a_folder_that_cannot_be_read_are_left_out_and_named_at_the_end(
    invoke: Invoke, model_dir: Path, scans: Path
) -> None:
    good = invoke("predict", model_dir, scans, "--csv").stdout
    (scans / "text.png").write_text("no image")
    told = invoke("predict", model_dir, scans, "--csv")
    assert told.exit_code == 2
    assert told.stdout == good
    assert told.stderr.startswith(f"Error: 1 image left out:\n{scans / 'text.png'}: is not a PNG or JPEG image.")


def test_every_image_that_cannot_be_read_is_named_at_once(invoke: Invoke, tmp_path: Path, model_dir: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    Image.new("L", (60, 60), 255).save(folder / "blank.png")
    (folder / "text.png").write_text("no image")
    told = invoke("predict", model_dir, folder)
    assert told.exit_code == 2
    assert "blank.png: there is nothing on it" in told.output
    assert "text.png: is not a PNG or JPEG image." in told.output
