"""The optimizers of torch, and the moving average of a model's parameters."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from kmnist_search.config import OptimizerConfig

Net = TypeVar("Net", bound=nn.Module)


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer. Weight decay acts on what `config.decayed` says: "matrices" excludes biases and norms."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {
            "params": [p for p in parameters if p.ndim < 2],
            "weight_decay": config.weight_decay if config.decayed == "all" else 0.0,
        },
    ]
    rate, betas = config.learning_rate, (0.9, config.beta2)
    # fused: one kernel for all parameters, on CPU and GPU.
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)
        case "adam":
            return torch.optim.Adam(groups, lr=rate, betas=betas, fused=True)
        case "sgd":
            return torch.optim.SGD(groups, lr=rate, momentum=config.momentum, fused=True)


def average_share(decay: float, step: int) -> float:
    """Return the share of the current parameters in their moving average after `step` (from 0).

    The decay of step t is min(decay, (1 + t) / (10 + t)), so that the average of a short training forgets its start.
    """
    return 1 - min(decay, (1 + step) / (10 + step))


class MovingAverage(Generic[Net]):
    """A copy of a model whose parameters are an exponential moving average of the model's.

    The decay grows with the steps, see `average_share`. torch's `AveragedModel` is not used, because it reads its step
    counter back from the device at every step.
    """

    def __init__(self, model: Net, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, share: Tensor) -> None:
        """Move towards `model` by `share`, a tensor of shape () on the model's device."""
        for average, current in zip(self._state(self.model), self._state(model), strict=True):
            if average.is_floating_point():
                average.lerp_(current, share.to(average.dtype))
            else:
                average.copy_(current)

    @staticmethod
    def _state(model: nn.Module) -> list[torch.Tensor]:
        return [*model.parameters(), *model.buffers()]
