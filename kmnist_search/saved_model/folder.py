"""The folder of a saved model: written whole, and checked when it is read.

It holds `config.json`, which is a `ModelInfo`, and `weights.safetensors`; see `packed.py`.
"""

import json
from pathlib import Path

from pydantic import ValidationError

from kmnist_search.config import describe
from kmnist_search.errors import ModelError
from kmnist_search.host.files import whole_folder
from kmnist_search.saved_model.info import FORMAT_VERSION, ModelInfo
from kmnist_search.saved_model.model import SavedModel
from kmnist_search.saved_model.packed import PackedModel

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"


def write(folder: Path, packed: PackedModel) -> None:
    """Write a model to `folder`, which must be empty or not there; whole or not at all. The folders above are made.

    Raises:
        ModelError: the folder is there already, or cannot be written.
    """
    config = json.dumps(packed.info.model_dump(mode="json"), indent=2, ensure_ascii=False)
    with whole_folder(folder, error=ModelError) as part:
        (part / WEIGHTS_FILE).write_bytes(packed.weights)
        (part / CONFIG_FILE).write_text(f"{config}\n", encoding="utf-8")


def load_model(path: Path | str) -> SavedModel:
    """Read the folder of a saved model.

    Raises:
        ModelError: it is not such a folder, is damaged, or was made by a newer kmnist-search.
    """
    folder = Path(path)
    info = _info_in(folder)
    file = folder / WEIGHTS_FILE
    try:
        weights = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror}. Copy the whole folder again.") from None
    try:
        return PackedModel(info=info, weights=weights).unpacked()
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from None


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
