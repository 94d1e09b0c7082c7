"""The description of a saved model: the content of its config.json as a frozen value."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from kmnist_search.config import NUM_CLASSES, AnyModelConfig, Dataset, Positive, Share, TrialConfig
from kmnist_search.data.catalog import ClassName

FORMAT_VERSION: Literal[1] = 1

Digest = Annotated[str, Field(pattern="^[0-9a-f]{12}$")]


def recipe_digest(config: TrialConfig, data_digest: str) -> str:
    """Return the digest of a recipe: a configuration and the images that it is trained on."""
    values = [config.model_dump(mode="json"), data_digest]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


class ModelInfo(BaseModel):
    """Everything about a saved model except its weights; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1]
    package_version: str = Field(description="version of the kmnist-search that saved it")
    dataset: Dataset
    classes: Annotated[tuple[ClassName, ...], Field(min_length=NUM_CLASSES, max_length=NUM_CLASSES)]
    model: AnyModelConfig
    mean: Share = Field(description="mean of the training pixels, as a share of 255; inputs are normalised by it")
    std: Positive = Field(description="standard deviation of the training pixels, as a share of 255")
    config_digest: Digest = Field(description="digest of the configuration it was trained with")
    recipe_digest: Digest = Field(description="digest of the recipe it was trained by")
    seed: int
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of weights.safetensors")]
