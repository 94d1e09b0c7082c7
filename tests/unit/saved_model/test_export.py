"""Tests of saved_model/onnx_file.py and export.py: a model in another format is the same model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from kmnist_search.config import DataConfig, PatchMLPConfig
from kmnist_search.data import search_data
from kmnist_search.errors import ExportFailedError, ModelError
from kmnist_search.model import build
from kmnist_search.saved_model import onnx_file
from kmnist_search.saved_model.export import SUFFIXES, Format, export
from kmnist_search.saved_model.folder import load_model
from kmnist_search.saved_model.model import SavedModel
from tests.unit.saved_model.test_folder import save

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"patch_size": 14, "dim": 8, "token_width": 4, "channel_width": 8, "num_blocks": 2}
KINDS: list[dict[str, Any]] = [
    {"norm": "layer", "image_size": 32, "patch_size": 16},
    {"norm": "batch", "dropout": 0.3, "drop_path": 0.2},
    {"norm": "none", "activation": "relu"},
    {"skip": False, "token_width": [3, 5], "channel_width": [6, 7]},
]


@pytest.fixture(scope="module")
def digits() -> NDArray[np.uint8]:
    return search_data.load(DataConfig(dataset="digits"), Path()).val_images.numpy()


@pytest.fixture(scope="module")
def trained(model_dir: Path) -> SavedModel:
    return load_model(model_dir)


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory: pytest.TempPathFactory, trained: SavedModel) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export(trained, "onnx", path)
    return path


def untrained(folder: Path, **values: Any) -> SavedModel:
    """A model with random weights whose norms have seen something."""
    model = build(PatchMLPConfig(**(SMALL | values)), 0)
    for _ in range(20):
        size = model.config.image_size
        model(torch.randn(32, size, size) * 2 + 1)
    save(folder, model)
    return load_model(folder)


@pytest.mark.slow
@pytest.mark.parametrize("values", KINDS, ids=str)
def test_every_kind_of_model_predicts_the_same_as_an_onnx_file(
    tmp_path: Path, digits: NDArray[np.uint8], values: dict[str, Any]
) -> None:
    saved = untrained(tmp_path / "model", **values)
    path = tmp_path / "model.onnx"
    export(saved, "onnx", path)
    with torch.inference_mode():
        logits = saved.classifier(torch.from_numpy(digits)).numpy()
    session = onnxruntime.InferenceSession(path)
    for size in (1, 3, len(digits)):
        (found,) = session.run(["logits"], {"images": digits[:size]})
        assert np.asarray(found) == pytest.approx(logits[:size], abs=1e-5)


def test_the_onnx_file_stands_alone_and_says_what_its_classes_are(onnx_path: Path, trained: SavedModel) -> None:
    assert [path.name for path in onnx_path.parent.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(onnx_path, full_check=True)
    session = onnxruntime.InferenceSession(onnx_path)
    shapes = [(each.name, each.type, each.shape) for each in (*session.get_inputs(), *session.get_outputs())]
    assert shapes == [
        ("images", "tensor(uint8)", ["batch", 28, 28]),
        ("logits", "tensor(float)", ["batch", 10]),
        ("probabilities", "tensor(float)", ["batch", 10]),
    ]
    said = session.get_modelmeta().custom_metadata_map
    assert [each["text"] for each in json.loads(said["classes"])] == list("0123456789")
    assert (said["dataset"], said["weights_sha256"]) == ("digits", trained.info.weights_sha256)
    assert onnx.load(onnx_path).opset_import[0].version == 18


def test_probabilities_of_the_onnx_file_are_the_softmax_of_its_logits(
    onnx_path: Path, digits: NDArray[np.uint8]
) -> None:
    logits, probabilities = onnxruntime.InferenceSession(onnx_path).run(None, {"images": digits})
    assert probabilities == pytest.approx(torch.tensor(np.asarray(logits)).softmax(dim=1).numpy(), abs=1e-6)


def test_exported_twice_gives_the_same_bytes_without_a_word_of_this_machine(
    tmp_path: Path, onnx_path: Path, trained: SavedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again.onnx"
    export(trained, "onnx", again)
    assert again.read_bytes() == onnx_path.read_bytes()
    assert str(Path(__file__).parents[3]).encode() not in again.read_bytes()
    assert capfd.readouterr() == ("", "")


def test_a_file_that_predicts_otherwise_is_found_out(
    tmp_path: Path, onnx_path: Path, trained: SavedModel, digits: NDArray[np.uint8]
) -> None:
    onnx_file.check(onnx_path, trained, digits)
    model = onnx.load(onnx_path)
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name.endswith("model.classifier.bias"))
    changed = onnx.numpy_helper.to_array(bias).copy()
    for strength, problem in ((0.1, "predicts 0 of 240 images differently"), (50, r"predicts 2\d\d of 240 images")):
        changed[3] += strength
        bias.CopyFrom(onnx.numpy_helper.from_array(changed, bias.name))
        onnx.save(model, tmp_path / "changed.onnx")
        with pytest.raises(ExportFailedError, match=problem):
            onnx_file.check(tmp_path / "changed.onnx", trained, digits)


def test_a_safetensors_file_holds_weights_and_configuration(tmp_path: Path, trained: SavedModel) -> None:
    path = tmp_path / "model.safetensors"
    export(trained, "safetensors", path)
    weights = load_file(path)
    state = trained.classifier.model.state_dict()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in state.items())
    header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
    assert json.loads(json.loads(header)["__metadata__"]["config"]) == trained.info.model_dump(mode="json")
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("to", list(SUFFIXES))
def test_a_file_that_is_there_stays_unless_forced(tmp_path: Path, trained: SavedModel, to: Format) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    with pytest.raises(ModelError, match=r"file: is there already\. Choose another --out, or --force\."):
        export(trained, to, path)
    assert path.read_bytes() == b"mine"
    export(trained, to, path, force=True)
    assert path.read_bytes() != b"mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("to", list(SUFFIXES))
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, trained: SavedModel, to: Format) -> None:
    with pytest.raises(ModelError, match="file: cannot be written: No such file or directory"):
        export(trained, to, tmp_path / "none" / "file")
    with pytest.raises(ModelError, match=r"is there already\. Choose another --out\.$"):
        export(trained, to, tmp_path, force=True)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_its_check_leaves_what_was_there(tmp_path: Path, trained: SavedModel) -> None:
    """What is written has the mean of `info`, the model another one: a fault as an exporter might have it."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"mine")
    other = SavedModel(info=trained.info.model_copy(update={"mean": 0.0}), classifier=trained.classifier)
    with pytest.raises(ExportFailedError, match="the exported model predicts"):
        export(other, "safetensors", path, force=True)
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]
