"""A packed model: its description and its weights as bytes, as they lie in a folder or in an artifact store."""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version

from safetensors import SafetensorError
from safetensors.torch import load as weights_in, save as weights_as_bytes
from torch import Tensor

from kmnist_search.config import Dataset
from kmnist_search.data.catalog import CLASS_NAMES
from kmnist_search.engine.replica import Replica
from kmnist_search.errors import ModelError
from kmnist_search.model import Model, model_of
from kmnist_search.saved_model.info import FORMAT_VERSION, ModelInfo, recipe_digest
from kmnist_search.saved_model.model import Classifier, SavedModel


@dataclass(frozen=True, eq=False, kw_only=True)
class PackedModel:
    """The description of a model, and its state as safetensors: float32, but the counters of batch norms as they are.

    The same state gives the same bytes. There are no pickles: unpacking a model runs no code from its bytes.
    """

    info: ModelInfo
    weights: bytes

    def unpacked(self) -> SavedModel:
        """Return the model, ready to predict.

        Raises:
            ModelError: the bytes are damaged, or of another model.
        """
        found = hashlib.sha256(self.weights).hexdigest()
        if found != self.info.weights_sha256:
            raise ModelError(
                f"wrong checksum: its contents have SHA-256 {found}, its description says {self.info.weights_sha256}. "
                "The file is damaged or belongs to another model: copy the whole folder again."
            )
        model = model_of(self.info.model)
        try:
            model.load_state_dict(weights_in(self.weights))
        except (SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"does not fit its description, so one of them was changed: {reason}") from None
        return SavedModel(info=self.info, classifier=Classifier(model, mean=self.info.mean, std=self.info.std))


def pack(
    model: Model,
    *,
    dataset: Dataset,
    mean: float,
    std: float,
    config_digest: str,
    recipe_digest: str,
    seed: int,
) -> PackedModel:
    """Return a packed model; the arguments after `model` are the fields of `ModelInfo`."""
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
    return PackedModel(info=info, weights=weights)


def pack_trained(model: Model, training: Replica, dataset: Dataset) -> PackedModel:
    """Return a packed model of a training on images of `dataset`."""
    return pack(
        model,
        dataset=dataset,
        mean=training.data.mean,
        std=training.data.std,
        config_digest=training.config.digest,
        recipe_digest=recipe_digest(training.config, training.data.digest),
        seed=training.seed,
    )


def _plain(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu()
    return tensor.float().contiguous() if tensor.is_floating_point() else tensor.contiguous()
