"""The table [constraints] of a study file: the largest nets, and trainings, that are proposed."""

import math
from typing import Annotated

from pydantic import Field

from kmnist_search.config import Config, TrialConfig, cost
from kmnist_search.engine.memory_estimate import BFLOAT16, VAL_BATCH_SIZE, memory_needed

#: What each key of [constraints] counts.
SIZE_UNITS = {"max_parameters": "parameters", "max_flops": "FLOPs", "max_memory_mib": "MiB of GPU memory"}
#: The training images of the largest data sets.
MOST_IMAGES = 60_000


class ConstraintsTable(Config):
    """The table [constraints]: the largest nets that are proposed. None means that any size is.

    `max_parameters` counts trained ones, `max_flops` the floating-point operations of the forward pass of one image.
    `max_memory_mib` is of the estimate for a training on a GPU in bfloat16, which the batch size is part of.
    """

    max_parameters: Annotated[int, Field(ge=1)] | None = None
    max_flops: Annotated[int, Field(ge=1)] | None = None
    max_memory_mib: Annotated[int, Field(ge=1)] | None = None

    @property
    def limits(self) -> dict[str, int]:
        """The most of each size that is limited, by the name of its key."""
        return {key: most for key, most in self.model_dump().items() if most is not None}

    def size(self, key: str, config: TrialConfig) -> int:
        """Return the size of a training that the key is about."""
        match key:
            case "max_parameters":
                return cost.num_parameters(config.model)
            case "max_flops":
                return cost.flops_per_image(config.model)
            case _:
                memory = memory_needed(
                    config, train_images=MOST_IMAGES, val_images=VAL_BATCH_SIZE, activation_bytes=BFLOAT16, on_gpu=True
                )
                return math.ceil(memory / 2**20)

    def excess(self, config: TrialConfig) -> str:
        """Return by what a training is too large, such as "5,130 parameters"; empty if it is not."""
        sizes = {key: (self.size(key, config), most) for key, most in self.limits.items()}
        return " and ".join(f"{size:,} {SIZE_UNITS[key]}" for key, (size, most) in sizes.items() if size > most)
