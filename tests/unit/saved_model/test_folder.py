"""Tests of saved_model/folder.py and model.py: a saved model that is loaded is the same model."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import kmnist_search
from kmnist_search.config import DataConfig, Dataset, PatchMLPConfig
from kmnist_search.data import search_data
from kmnist_search.data.search_data import SearchData
from kmnist_search.errors import ModelError
from kmnist_search.model import Model, build
from kmnist_search.saved_model.folder import load_model
from kmnist_search.saved_model.info import ModelInfo
from kmnist_search.saved_model.model import Classifier
from tests.support.models import save_model

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = PatchMLPConfig(patch_size=14, dim=8, token_width=4, channel_width=8, num_blocks=2)


def save(folder: Path, model: Model, *, dataset: Dataset = "kmnist", seed: int = 0, mean: float = 0.2) -> ModelInfo:
    return save_model(
        folder,
        model,
        dataset=dataset,
        mean=mean,
        std=0.35,
        config_digest="0" * 12,
        recipe_digest="1" * 12,
        seed=seed,
    )


@pytest.fixture(scope="module")
def digits() -> SearchData:
    return search_data.load(DataConfig(dataset="digits"), Path())


@pytest.fixture
def copied(tmp_path: Path, model_dir: Path) -> Path:
    """A saved model that may be damaged."""
    return Path(shutil.copytree(model_dir, tmp_path / "model"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    return str(caught.value)


# Saving and loading.


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        PatchMLPConfig(patch_size=4, dim=8, num_blocks=2, token_width=(4, 6), channel_width=(8, 10), norm="batch"),
        PatchMLPConfig(image_size=32, patch_size=8, dim=8, num_blocks=1, norm="none", activation="relu", skip=False),
    ],
)
def test_a_model_that_is_loaded_is_the_one_that_was_saved_to_the_last_bit(
    tmp_path: Path, config: PatchMLPConfig
) -> None:
    model = build(config, 3)
    model(torch.randn(8, config.image_size, config.image_size))  # what batch norms remember is not as it began
    info = save(tmp_path / "model", model)
    loaded = load_model(tmp_path / "model")
    assert loaded.info == info
    assert info.model == config
    state = loaded.classifier.model.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert not loaded.classifier.training


def test_the_bytes_of_the_weights_depend_on_the_weights_alone(tmp_path: Path) -> None:
    one = save(tmp_path / "one", build(SMALL, 0))
    same = save(tmp_path / "same", build(SMALL, 0), dataset="digits", seed=7, mean=0.1)
    other = save(tmp_path / "other", build(SMALL, 1))
    assert one.weights_sha256 == same.weights_sha256 != other.weights_sha256
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("one", "same")]
    assert weights[0] == weights[1]


def test_weights_of_another_precision_are_saved_as_float32(tmp_path: Path) -> None:
    save(tmp_path / "model", build(SMALL, 0).double())
    assert {tensor.dtype for tensor in load_model(tmp_path / "model").classifier.state_dict().values()} == {
        torch.float32
    }


def test_a_folder_that_is_there_is_not_written_over_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    save(tmp_path / "model", build(SMALL, 0))
    with pytest.raises(ModelError, match=r"model: cannot be written: Directory not empty\."):
        save(tmp_path / "model", build(SMALL, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "weights.safetensors"]


def test_others_may_read_what_the_umask_lets_them_read(tmp_path: Path) -> None:
    save(tmp_path / "model", build(SMALL, 0))
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").touch()
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "plain").stat().st_mode
    for file in (tmp_path / "model").iterdir():
        assert file.stat().st_mode == (tmp_path / "plain" / "file").stat().st_mode


def test_the_package_offers_load_model_and_preprocess_without_importing_torch() -> None:
    code = "import sys, kmnist_search; print('torch' in sys.modules, kmnist_search.load_model.__module__)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False kmnist_search.saved_model.folder\n"
    with pytest.raises(AttributeError, match="has no attribute 'load_modell'"):
        kmnist_search.load_modell  # noqa: B018


# What is refused.


def test_a_folder_without_a_model_is_refused_and_the_one_below_is_pointed_at(tmp_path: Path, copied: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "none").endswith("none: is not the folder of a saved model. It has no config.json.")
    assert refusal(tmp_path / "empty").endswith("empty: is not the folder of a saved model. It has no config.json.")
    assert refusal(copied / "config.json").endswith("is not the folder of a saved model. It has no config.json.")
    assert refusal(tmp_path).endswith(f"is not the folder of a saved model. Did you mean {copied}?")


def test_missing_weights_are_named(copied: Path) -> None:
    (copied / "weights.safetensors").unlink()
    assert refusal(copied) == (
        f"{copied / 'weights.safetensors'}: cannot be read: No such file or directory. Copy the whole folder again."
    )


def test_weights_with_one_bit_changed_are_refused(copied: Path) -> None:
    content = bytearray((copied / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (copied / "weights.safetensors").write_bytes(content)
    assert f"{copied / 'weights.safetensors'}: wrong checksum: its contents have SHA-256 " in refusal(copied)


def test_a_model_of_a_newer_format_is_refused_with_who_made_it(copied: Path) -> None:
    edit(copied, lambda config: config.update(format_version=2, package_version="3.1.4", shape="new"))
    assert refusal(copied) == (
        f"{copied / 'config.json'}: was made by kmnist-search 3.1.4, in format 2; this one reads format 1. "
        "Upgrade kmnist-search."
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda config: config.update(colour="red"), "colour: extra inputs are not permitted, got 'red'"),
        (lambda config: config.pop("std"), "std: field required"),
        (lambda config: config.update(std=0.0), "std: input should be greater than 0, got 0.0"),
        (lambda config: config["classes"].pop(), "classes: tuple should have at least 10 items"),
        (lambda config: config.update(dataset="cifar"), "dataset: input should be 'kmnist', 'mnist'"),
        (lambda config: config.update(format_version=0), "format_version: input should be 1, got 0"),
        (lambda config: config.pop("format_version"), "format_version: field required"),
        (lambda config: config.update(format_version="new"), "format_version: input should be 1, got 'new'"),
        (lambda config: config["model"].update(patch_size=5), "patch_size 5 does not divide image_size 28"),
        (lambda config: config["model"].update(dim="wide"), "dim: input should be a valid integer"),
    ],
)
def test_a_config_that_says_something_impossible_is_refused_with_the_place(
    copied: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    edit(copied, change)
    message = refusal(copied)
    assert message.startswith(f"{copied / 'config.json'}: is damaged: ")
    assert problem in message
    assert message.endswith("Copy the folder of the model again.")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'"model"'])
def test_a_config_that_is_no_json_object_is_refused(copied: Path, content: bytes) -> None:
    (copied / "config.json").write_bytes(content)
    assert refusal(copied).startswith(f"{copied / 'config.json'}: is damaged: ")


def test_weights_that_do_not_fit_the_configuration_are_refused(copied: Path) -> None:
    edit(copied, lambda config: config["model"].update(dim=64))
    message = refusal(copied)
    assert message.startswith(f"{copied}/weights.safetensors: does not fit its description, so one of them")
    assert "size mismatch" in message
    assert "\n" not in message


# What it predicts.


def test_probabilities_are_those_of_the_network_on_normalised_images(model_dir: Path, digits: SearchData) -> None:
    saved = load_model(model_dir)
    images = digits.val_images
    with torch.no_grad():
        logits = saved.classifier.model((images.float() / 255 - saved.info.mean) / saved.info.std)
    found = saved.probabilities(images)
    assert found.shape == (len(images), 10)
    assert found.dtype == np.float32
    assert found == pytest.approx(logits.softmax(dim=1).numpy(), abs=1e-6)
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (found.argmax(axis=1) == digits.val_labels.numpy()).mean() > 0.9


def test_numpy_and_torch_and_any_batch_give_the_same(model_dir: Path, digits: SearchData) -> None:
    saved = load_model(model_dir)
    many = digits.train_images[:1100]  # two batches
    found = saved.probabilities(many.numpy())
    assert found == pytest.approx(saved.probabilities(many), abs=0)
    assert found[1050:] == pytest.approx(saved.probabilities(many[1050:]), abs=1e-6)
    assert saved.probabilities(many[:0]).shape == (0, 10)


@pytest.mark.parametrize(
    "images", [np.zeros((2, 28, 28), np.float32), np.zeros((28, 28), np.uint8), np.zeros((2, 32, 32), np.uint8)]
)
def test_images_of_another_type_or_shape_are_refused(model_dir: Path, images: Any) -> None:
    with pytest.raises(ValueError, match=r"images must be uint8 \(B, 28, 28\), got (float32|uint8) "):
        load_model(model_dir).probabilities(images)


def test_predict_takes_paths_and_pillow_images_and_names_what_it_found(
    tmp_path: Path, model_dir: Path, digits: SearchData
) -> None:
    saved = load_model(model_dir)
    one, two = (Image.fromarray(image.numpy()) for image in digits.train_images[:2])
    one.save(tmp_path / "one.png")
    found = saved.predict([tmp_path / "one.png", str(tmp_path / "one.png"), two])
    assert found == saved.predict(digits.train_images[[0, 0, 1]])
    assert [str(prediction.name) for prediction in found] == [str(prediction.label) for prediction in found]
    assert saved.predict([]) == []


def test_a_classifier_for_32_pixels_enlarges_images_as_the_training_did(digits: SearchData) -> None:
    model = build(PatchMLPConfig(image_size=32, patch_size=8, dim=8, num_blocks=1), 0).eval()
    classifier = Classifier(model, mean=0.2, std=0.35)
    small, large = digits.val_images, digits.resized(32).val_images
    with torch.no_grad():
        assert torch.equal(classifier(small), classifier(large))
        assert torch.equal(classifier(small.float()), classifier(small))
        assert torch.equal(classifier(large), model((large.float() / 255 - 0.2) / 0.35))
        assert not torch.equal(classifier(small), classifier(F.pad(small, (2, 2, 2, 2))))
