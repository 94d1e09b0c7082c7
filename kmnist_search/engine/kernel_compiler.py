"""Compiles the Triton kernels that nets need, without running them; several processes share the kernels.

Each process takes a step of each net, in which every kernel of its share is compiled instead of run. Triton keeps what
it compiled in its cache folder, where all processes find it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kmnist_search.config import TrialConfig
from kmnist_search.engine.kernels.launch import launching_by
from kmnist_search.engine.noise_data import noise_data
from kmnist_search.engine.program import EpochPlan
from kmnist_search.engine.triton_program import TritonProgram


class KernelCompiler:
    """The share of one process: every `shares`-th kernel that the nets need, from number `share` on.

    Attributes:
        met: the kernels that the nets so far need, each with what Triton compiles a variant for.
    """

    def __init__(self, share: int, shares: int) -> None:
        self.share, self.shares = share, shares
        self.met: dict[Any, None] = {}

    @torch.no_grad()
    def compile_for(self, config: TrialConfig, device: torch.device) -> None:
        """Compile what a training step and a validation batch of a net need, on the GPU that is in use.

        Raises:
            Exception: any error of torch, Triton, a compiler or a driver.
        """
        data = noise_data(config.batch.batch_size, 1, device).resized(config.model.image_size)
        program = TritonProgram(config, [data], seeds=[0], device=device)
        order = torch.arange(len(data.train_images), device=device)
        with launching_by(self._compile):
            program.begin([EpochPlan(order=order, rates=[0.0], first_step=0)])
            program.train_step()
            program.val_batch(0)

    def _compile(
        self, kernel: Any, grid: tuple[int, ...], arguments: Sequence[Any], constants: Mapping[str, Any]
    ) -> None:
        kinds = [_kind(*each) for each in zip(arguments, kernel.params, strict=False)]  # constants are parameters, too
        variant = (kernel.__name__, *kinds, *constants.items())
        if variant in self.met:
            return
        self.met[variant] = None
        if len(self.met) % self.shares == self.share:
            kernel.warmup(*arguments, grid=grid, **constants)


def _kind(argument: Any, parameter: Any) -> Any:
    """Return for what of an argument Triton compiles another variant: type, alignment, multiples of 16, the number 1.

    A kernel says of which parameters only the type matters.
    """
    if isinstance(argument, Tensor):
        return argument.dtype, parameter.do_not_specialize or argument.data_ptr() % 16 == 0
    if isinstance(argument, int):
        special = None if parameter.do_not_specialize else (argument % 16 == 0, argument == 1)
        return argument.bit_length() > 31, special
    return type(argument)
