"""A saved model as one ONNX file, and the check that the file predicts the same.

The input `images` is uint8 (batch, 28, 28), 0 = background: pixels cannot be taken for shares of 1 by mistake.
The outputs `logits` and `probabilities` are float32 (batch, 10). The metadata of the file names the classes.
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
from kmnist_search.saved_model.model import BATCH_SIZE, Classifier, SavedModel

OPSET = 18

#: The largest difference of a probability that summing float32 in another order may cause.
TOLERANCE = 1e-4


class _WithProbabilities(nn.Module):
    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.classifier(images)
        return logits, logits.softmax(dim=1)


def write(saved: SavedModel, path: Path) -> None:
    """Write the model to `path`, as one file. The same model gives the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they address developers of exporters
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
    """Run the file with onnxruntime on uint8 (B, 28, 28) images, and compare its predictions with those of the model.

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
        ExportFailedError: a prediction differs, or a probability by more than `TOLERANCE`.
    """
    different = int((found.argmax(axis=1) != wanted.argmax(axis=1)).sum())
    largest = float(np.abs(found - wanted).max(initial=0.0))
    if different or not largest <= TOLERANCE:
        raise ExportFailedError(
            f"the exported model predicts {different} of {len(wanted):,} images differently from the model, with "
            f"probabilities that differ by up to {largest:.2g}. This is a bug in kmnist-search or in its libraries."
        )


def _forget_origins(graph: onnx.GraphProto) -> None:
    """Delete the exporter's debugging data: source files of this machine, and the graph of torch."""
    graph.ClearField("metadata_props")
    for part in (*graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
