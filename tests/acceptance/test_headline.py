"""The headline of a retraining, counted again from the saved models and the raw test files by code of its own.

Nothing of kmnist_search is imported here.
"""

import gzip
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy import special, stats

from tests.support.forked import forks

pytestmark = pytest.mark.slow

Array = NDArray[Any]

STUDY = """
[study]
name = "small"
trials = 2
pruner = "none"

[train]
epochs = 1

[space]
learning_rate = { low = 2e-3, high = 1e-2, log = true }

[fixed]
patch_size = 14
dim = 16
token_width = 8
channel_width = 32
num_blocks = 1
batch_size = 250
"""


@pytest.fixture
def result(tmp_path: Path, real_data_dir: Path) -> Path:
    """The folder of a small search of real KMNIST, retrained."""
    (tmp_path / "small.toml").write_text(STUDY)
    with forks(tmp_path) as start:
        start.finished("run", "small.toml", "--data-dir", str(real_data_dir))
        start.finished("best", "--retrain", "--top", "2", "--reruns", "2", "--models", "2")
    return tmp_path / "small-best"


def test_the_headline_is_what_independent_code_counts(result: Path, real_data_dir: Path) -> None:
    metrics = json.loads((result / "metrics.json").read_text())
    raw = real_data_dir / "KMNIST" / "raw"
    images, labels = _idx(raw / "t10k-images-idx3-ubyte.gz"), _idx(raw / "t10k-labels-idx1-ubyte.gz")
    seeds = metrics["recipe"]["seeds"]
    predicted = [_predicted(_folder(result, seeds, seed), images) for seed in seeds]
    accuracies = [float(np.mean(each == labels)) for each in predicted]

    test = metrics["test"]
    assert [model["test_accuracy"] for model in test["models"]] == accuracies
    assert test["mean_accuracy"] == sum(int(np.sum(each == labels)) for each in predicted) / (len(seeds) * len(labels))
    margin = stats.sem(accuracies) * stats.t.ppf(0.975, len(seeds) - 1)
    assert test["seeds_interval"] == pytest.approx([np.mean(accuracies) - margin, np.mean(accuracies) + margin])
    whole = round(test["mean_accuracy"] * len(labels))
    wilson = stats.binomtest(whole, len(labels)).proportion_ci(method="wilson")
    assert test["sampling_interval"] == pytest.approx([wilson.low, wilson.high], abs=1e-4)
    winner = metrics["candidates"][0]
    promised = np.mean([rerun["val_accuracy"] for rerun in winner["reruns"]])
    assert test["gap"] == pytest.approx(promised - test["mean_accuracy"], abs=1e-12)

    kept = test["kept"]
    assert kept["test_accuracy"] == accuracies[0]
    pairs = np.zeros((10, 10), dtype=int)
    np.add.at(pairs, (labels, predicted[0]), 1)
    assert kept["confusion"] == pairs.tolist()
    assert [each["recall"] for each in kept["classes"]] == pytest.approx(
        (pairs.diagonal() / pairs.sum(axis=1)).tolist()
    )

    session = onnxruntime.InferenceSession(result / "model" / "model.onnx")
    name = session.get_inputs()[0].name
    assert np.array_equal(session.run(None, {name: images})[0].argmax(axis=1), predicted[0])

    for report in ("report.html", "report.md"):
        text = re.sub(r"<script.*?</script>|<[^>]+>|\s", "", (result / report).read_text(), flags=re.DOTALL)
        assert f"{100 * test['mean_accuracy']:.2f}%" in text, report


def _folder(result: Path, seeds: list[int], seed: int) -> Path:
    return result / "model" if seed == seeds[0] else result / "other-seeds" / str(seed)


def _idx(path: Path) -> Array:
    content = gzip.decompress(path.read_bytes())
    sizes = [int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(content[3])]
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)


def _predicted(folder: Path, images: Array) -> Array:
    """Return the classes that a saved model gives to images: an MLP-Mixer in numpy, in float64, an image a row."""
    config, weights = json.loads((folder / "config.json").read_text()), load_file(folder / "weights.safetensors")
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    patch = config["model"]["patch_size"]
    x = (images / 255 - config["mean"]) / config["std"]
    x = x.reshape(-1, 28 // patch, patch, 28 // patch, patch).swapaxes(2, 3).reshape(len(x), -1, patch * patch)
    x = x @ w["stem.weight"].T + w["stem.bias"]
    for number in range(config["model"]["num_blocks"]):
        b = f"blocks.{number}."
        tokens = _norm(x, w, b + "norm1.norm").swapaxes(1, 2)
        hidden = _gelu(tokens @ w[b + "token_mlp.weight1_NT"] + w[b + "token_mlp.bias1_T"])
        x = x + (hidden @ w[b + "token_mlp.weight2_NT"].T + w[b + "token_mlp.bias2_N"]).swapaxes(1, 2)
        hidden = _gelu(
            _norm(x, w, b + "norm2.norm") @ w[b + "channel_mlp.linear1.weight"].T + w[b + "channel_mlp.linear1.bias"]
        )
        x = x + hidden @ w[b + "channel_mlp.linear2.weight"].T + w[b + "channel_mlp.linear2.bias"]
    x = _norm(x, w, "norm.norm").mean(axis=1)
    predicted: Array = (x @ w["classifier.weight"].T + w["classifier.bias"]).argmax(axis=1)
    return predicted


def _norm(x: Array, w: dict[str, Array], name: str) -> Array:
    normed: Array = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    return normed * w[name + ".weight"] + w[name + ".bias"]


def _gelu(x: Array) -> Array:
    gelu: Array = x * (1 + special.erf(x / math.sqrt(2))) / 2
    return gelu
