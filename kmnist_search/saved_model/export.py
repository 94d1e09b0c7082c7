"""Export of a saved model as one file: ONNX, or safetensors.

A file is checked against the model before it gets its name, and is written whole or not at all.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save as weights_as_bytes

from kmnist_search.errors import ModelError
from kmnist_search.host.files import whole_file
from kmnist_search.model import model_of
from kmnist_search.saved_model import onnx_file
from kmnist_search.saved_model.model import Classifier, SavedModel

Format = Literal["onnx", "safetensors"]

SUFFIXES: Mapping[Format, str] = {"onnx": ".onnx", "safetensors": ".safetensors"}


def export(saved: SavedModel, to: Format, out: Path, *, force: bool = False) -> None:
    """Write the model to `out` in the format `to`.

    - "onnx": see `onnx_file`.
    - "safetensors": the weights as they lie in the model's folder, and `config.json` as the metadata "config".

    Raises:
        ModelError: the file is there already and not `force`, or cannot be written.
        ExportFailedError: what was written does not predict what the model predicts.
    """
    write, check = (onnx_file.write, onnx_file.check) if to == "onnx" else (_write_safetensors, _check_safetensors)
    with whole_file(out, error=ModelError) as part:
        if out.is_dir() or (out.exists() and not force):
            raise ModelError(f"{out}: is there already. Choose another --out{'' if out.is_dir() else ', or --force'}.")
        write(saved, part)
        check(part, saved, _probes())


def _probes() -> NDArray[np.uint8]:
    """Return 256 images to compare by: coarse blots under noise, from nearly white to nearly black."""
    rng = np.random.default_rng(0)
    coarse = rng.random((256, 7, 7)).repeat(4, axis=1).repeat(4, axis=2)
    noisy = coarse * 0.8 + rng.random((256, 28, 28)) * 0.2
    threshold = np.linspace(0, 1, 256).reshape(-1, 1, 1)
    return (np.clip((noisy - threshold) * 4 + 0.5, 0, 1) * 255).round().astype(np.uint8)


def _write_safetensors(saved: SavedModel, path: Path) -> None:
    metadata = {"config": saved.info.model_dump_json()}
    path.write_bytes(weights_as_bytes(saved.classifier.model.state_dict(), metadata))  # save_file makes it mode 600


def _check_safetensors(path: Path, saved: SavedModel, images: NDArray[np.uint8]) -> None:
    model = model_of(saved.info.model)
    with safe_open(path, "pt") as file:
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    read = SavedModel(info=saved.info, classifier=Classifier(model, mean=saved.info.mean, std=saved.info.std))
    onnx_file.compare(read.probabilities(images), saved.probabilities(images))
