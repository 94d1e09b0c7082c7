"""A saved model in the formats of others: ONNX, TorchScript, one safetensors file. Knows nothing of how it was trained.

Each file stands alone, is checked against the model before it gets its name, and is written whole or not at all.
"""

import io
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save as weights_as_bytes

from kmnist_search.errors import ModelError
from kmnist_search.model import model_of
from kmnist_search.saved_model import onnx_file
from kmnist_search.saved_model.classifier import Classifier
from kmnist_search.saved_model.model import SavedModel

Format = Literal["onnx", "torchscript", "safetensors"]

SUFFIXES: Mapping[Format, str] = {"onnx": ".onnx", "torchscript": ".pt", "safetensors": ".safetensors"}


def export(saved: SavedModel, to: Format, out: Path, *, force: bool = False) -> None:
    """Write the model to `out` in the format `to`.

    - "onnx": see `onnx_file`.
    - "torchscript": for `torch.jit.load`, without this package; uint8 (B, 28, 28) images in, (B, 10) logits out. For
      what still needs it: torch itself has deprecated TorchScript, and says so when it loads one.
    - "safetensors": the weights as they lie in the model's folder, and `config.json` as the metadata "config".

    Raises:
        ModelError: the file is there already and not `force`, or cannot be written.
        ExportFailedError: what was written does not predict what the model predicts.
    """
    write, check = _FORMATS[to]
    part = out.parent / f".{out.name}.{os.getpid()}.part"
    try:
        if out.is_dir() or (out.exists() and not force):
            raise ModelError(f"{out}: is there already. Choose another --out{'' if out.is_dir() else ', or --force'}.")
        try:
            part.touch()  # torch says nothing clear of a folder that cannot be written
            write(saved, part)
            check(part, saved, _probes())
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ModelError(f"{out}: cannot be written: {error.strerror}.") from None


def _probes() -> NDArray[np.uint8]:
    """Return 256 images to compare by: coarse blots under noise, from nearly white to nearly black."""
    rng = np.random.default_rng(0)
    coarse = rng.random((256, 7, 7)).repeat(4, axis=1).repeat(4, axis=2)
    noisy = coarse * 0.8 + rng.random((256, 28, 28)) * 0.2
    threshold = np.linspace(0, 1, 256).reshape(-1, 1, 1)
    return (np.clip((noisy - threshold) * 4 + 0.5, 0, 1) * 255).round().astype(np.uint8)


def _write_torchscript(saved: SavedModel, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and may make a constant of a shape: `check` would see that
        traced = torch.jit.trace(saved.classifier, torch.zeros(2, 28, 28, dtype=torch.uint8), check_trace=False)
        buffer = io.BytesIO()  # a file would carry its own name, which is not yet the one it will have
        torch.jit.save(traced, buffer)
    path.write_bytes(buffer.getvalue())


def _check_torchscript(path: Path, saved: SavedModel, images: NDArray[np.uint8]) -> None:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", FutureWarning)
        loaded = torch.jit.load(path)
        found = loaded(torch.from_numpy(images)).softmax(dim=1).numpy()
    onnx_file.compare(found, saved.probabilities(images))


def _write_safetensors(saved: SavedModel, path: Path) -> None:
    metadata = {"config": saved.info.model_dump_json()}
    path.write_bytes(weights_as_bytes(saved.classifier.model.state_dict(), metadata))  # save_file makes it mode 600


def _check_safetensors(path: Path, saved: SavedModel, images: NDArray[np.uint8]) -> None:
    model = model_of(saved.info.model)
    with safe_open(path, "pt") as file:
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    read = SavedModel(info=saved.info, classifier=Classifier(model, mean=saved.info.mean, std=saved.info.std))
    onnx_file.compare(read.probabilities(images), saved.probabilities(images))


_Write = Callable[[SavedModel, Path], None]
_Check = Callable[[Path, SavedModel, NDArray[np.uint8]], None]
_FORMATS: Mapping[Format, tuple[_Write, _Check]] = {
    "onnx": (onnx_file.write, onnx_file.check),
    "torchscript": (_write_torchscript, _check_torchscript),
    "safetensors": (_write_safetensors, _check_safetensors),
}
