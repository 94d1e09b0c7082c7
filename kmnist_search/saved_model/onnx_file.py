"""A saved model as one ONNX file, and the proof that it predicts the same. Knows nothing of other formats.

Input `images`: uint8 (batch, 28, 28), 0 = background: bytes cannot be taken for shares of 1 by mistake.
Outputs `logits` and `probabilities`: float32 (batch, 10). The file's metadata says what the classes are.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kmnist_search.errors import ExportFailedError
from kmnist_search.saved_model.classifier import Classifier
from kmnist_search.saved_model.model import BATCH_SIZE, SavedModel

OPSET = 18

#: Largest difference of a probability that float32 in another order of summation may make.
TOLERANCE = 1e-4


class _WithProbabilities(nn.Module):
    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.classifier(images)
        return logits, logits.softmax(dim=1)


def write(saved: SavedModel, path: Path) -> None:
    """Write the model to `path`, in one file that is the same whenever it is written.

    Raises:
        OSError: the file cannot be written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are for whoever writes exporters
        program = torch.onnx.export(
            _WithProbabilities(saved.classifier).eval(),
            (torch.zeros(2, 28, 28, dtype=torch.uint8),),
            input_names=["images"],
            output_names=["logits", "probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ExportFailedError("torch.onnx.export returned no program.")
    model = program.model_proto
    _forget_origins(model.graph)
    info = saved.info
    classes = [{"text": name.text, "reading": name.reading} for name in info.classes]
    onnx.helper.set_model_props(
        model,
        {
            "classes": json.dumps(classes, ensure_ascii=False),
            "dataset": info.dataset,
            "config_digest": info.config_digest,
            "recipe_digest": info.recipe_digest,
            "weights_sha256": info.weights_sha256,
            "kmnist_search": info.package_version,
        },
    )
    path.write_bytes(model.SerializeToString(deterministic=True))


def check(path: Path, saved: SavedModel, images: Tensor | NDArray[np.uint8]) -> None:
    """Run the file by onnxruntime on uint8 (B, 28, 28) images and compare with what the model itself says.

    Raises:
        ExportFailedError: a prediction differs, or a probability by more than `TOLERANCE`.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for start in range(0, len(images), BATCH_SIZE):
        batch = np.asarray(images[start : start + BATCH_SIZE])
        (found,) = session.run(["probabilities"], {"images": batch})
        compare(np.asarray(found), saved.probabilities(batch))


def compare(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
    """Compare the (B, 10) probabilities of an exported model with those of the model it was made from.

    Raises:
        ExportFailedError: as `check` does.
    """
    different = int((found.argmax(axis=1) != wanted.argmax(axis=1)).sum())
    largest = float(np.abs(found - wanted).max(initial=0.0))
    if different or not largest <= TOLERANCE:
        raise ExportFailedError(
            f"the exported model predicts {different} of {len(wanted):,} images otherwise than the model, with "
            f"probabilities that differ by up to {largest:.2g}. This is a fault of kmnist-search or of its libraries."
        )


def _forget_origins(graph: onnx.GraphProto) -> None:
    """Delete what the exporter notes for its debugging: source files of this machine and torch's own graph."""
    graph.ClearField("metadata_props")
    for part in (*graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
