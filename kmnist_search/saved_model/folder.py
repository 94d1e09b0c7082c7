"""The folder of a saved model: written whole, and checked when it is read.

It holds `config.json`, which is a `ModelInfo`, and `weights.safetensors`, the state of the net as float32 (the counters
of batch norms keep their type). It has no pickles: loading a model runs no code from its files.
"""

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as weights_in, save as weights_as_bytes
from torch import Tensor

from kmnist_search.config import Dataset, describe
from kmnist_search.data.catalog import CLASS_NAMES
from kmnist_search.engine.replica import Replica
from kmnist_search.errors import ModelError
from kmnist_search.host.files import whole_folder
from kmnist_search.model import Model, model_of
from kmnist_search.saved_model.info import FORMAT_VERSION, ModelInfo, recipe_digest
from kmnist_search.saved_model.model import Classifier, SavedModel

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"


def save_model(
    folder: Path,
    model: Model,
    *,
    dataset: Dataset,
    mean: float,
    std: float,
    config_digest: str,
    recipe_digest: str,
    seed: int,
) -> ModelInfo:
    """Write a model to `folder`, which must be empty or not there; whole or not at all. The folders above are made.

    The same weights give the same bytes, so the same `weights_sha256`. The other arguments are the fields of
    `ModelInfo`.

    Raises:
        ModelError: the folder is there already, or cannot be written.
    """
    weights = weights_as_bytes({name: _plain(tensor) for name, tensor in model.state_dict().items()})
    info = ModelInfo(
        format_version=FORMAT_VERSION,
        package_version=version("kmnist-search"),
        dataset=dataset,
        classes=CLASS_NAMES[dataset],
        model=model.config,
        mean=mean,
        std=std,
        config_digest=config_digest,
        recipe_digest=recipe_digest,
        seed=seed,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )
    config = json.dumps(info.model_dump(mode="json"), indent=2, ensure_ascii=False)
    with whole_folder(folder, error=ModelError) as part:
        (part / WEIGHTS_FILE).write_bytes(weights)
        (part / CONFIG_FILE).write_text(f"{config}\n", encoding="utf-8")
    return info


def save_trained(folder: Path, model: Model, training: Replica, dataset: Dataset) -> ModelInfo:
    """Write the model of a training on images of `dataset` to `folder`, replacing an older one; see `save_model`."""
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that died before it was recorded
    return save_model(
        folder,
        model,
        dataset=dataset,
        mean=training.data.mean,
        std=training.data.std,
        config_digest=training.config.digest,
        recipe_digest=recipe_digest(training.config, training.data.digest),
        seed=training.seed,
    )


def find_model(folder: Path, weights_sha256: str) -> SavedModel | None:
    """Return the model in `folder`; None if it is missing, damaged, or has other weights."""
    try:
        model = load_model(folder)
    except ModelError:
        return None
    return model if model.info.weights_sha256 == weights_sha256 else None


def load_model(path: Path | str) -> SavedModel:
    """Read the folder of a saved model.

    Raises:
        ModelError: it is not such a folder, is damaged, or was made by a newer kmnist-search.
    """
    folder = Path(path)
    info = _info_in(folder)
    file = folder / WEIGHTS_FILE
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror}. Copy the whole folder again.") from None
    found = hashlib.sha256(content).hexdigest()
    if found != info.weights_sha256:
        raise ModelError(
            f"{file}: wrong checksum: its contents have SHA-256 {found}, {CONFIG_FILE} says {info.weights_sha256}. "
            "The file is damaged or belongs to another model: copy the whole folder again."
        )
    model = model_of(info.model)
    try:
        model.load_state_dict(weights_in(content))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"{folder}: {WEIGHTS_FILE} does not fit the model in {CONFIG_FILE}, so one of them was changed: {reason}"
        ) from None
    return SavedModel(info=info, classifier=Classifier(model, mean=info.mean, std=info.std))


def _plain(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu()
    return tensor.float().contiguous() if tensor.is_floating_point() else tensor.contiguous()


def _info_in(folder: Path) -> ModelInfo:
    file = folder / CONFIG_FILE
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        inner = folder / "model"
        advice = f"Did you mean {inner}?" if (inner / CONFIG_FILE).is_file() else f"It has no {CONFIG_FILE}."
        raise ModelError(f"{folder}: is not the folder of a saved model. {advice}") from None
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror}.") from None
    try:
        stated = json.loads(content)
        found = stated.get("format_version") if isinstance(stated, dict) else None
        if isinstance(found, int) and found > FORMAT_VERSION:
            raise ModelError(
                f"{file}: was made by kmnist-search {stated.get('package_version')}, in format {found}; this one "
                f"reads format {FORMAT_VERSION}. Upgrade kmnist-search."
            )
        return ModelInfo.model_validate(stated)
    except ValidationError as error:
        problem = "; ".join(describe(error))
    except (ValueError, RecursionError) as error:
        problem = f"it is not JSON: {error}"
    raise ModelError(f"{file}: is damaged: {problem}. Copy the folder of the model again.")
