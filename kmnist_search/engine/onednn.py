"""Matrix products by oneDNN on CPUs, with gradients.

torch multiplies float32 matrices with MKL, which is slow on processors that are not Intel's: 103 GFLOP/s on a core
where oneDNN reaches 216 (tests/benchmarks/LOG.md). oneDNN is part of torch's builds for x86.

Shapes: y_MN = a_MK @ b_KN.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def onednn_products(device: torch.device) -> AbstractContextManager[Any]:
    """While entered, layers on a CPU multiply float32 matrices with oneDNN; so does their backward pass later.

    Changes nothing on a GPU, under autocast, for other dtypes, and in a torch without oneDNN.
    """
    return _ByOneDNN() if device.type == "cpu" and _is_available() else nullcontext()


def _is_available() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class _ByOneDNN(TorchFunctionMode):
    """Replaces the two functions that the layers of a PatchMLP multiply with."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not kwargs and func in _REPLACED and _are_float32(args):
            return _REPLACED[func](*args)
        return func(*args, **(kwargs or {}))


def _are_float32(tensors: tuple[Any, ...]) -> bool:
    return not torch.is_autocast_enabled("cpu") and all(
        isinstance(tensor, Tensor) and tensor.dtype == torch.float32 for tensor in tensors
    )


def _product(a_MK: Tensor, b_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """Return a @ b.T (+ bias); both may be transposed views."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a_MK, b_NK, bias_N, "none", [], "")
    return product


class _Linear(torch.autograd.Function):
    """y = x @ weight.T + bias."""

    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, weight_NK: Tensor, bias_N: Tensor) -> Tensor:
        ctx.save_for_backward(x_MK, weight_NK)
        return _product(x_MK, weight_NK, bias_N)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x_MK, weight_NK = ctx.saved_tensors
        (y_MN,) = grads
        # The images, the input of the first layer, need no gradient.
        x_grad = _product(y_MN, weight_NK.T) if ctx.needs_input_grad[0] else None
        return x_grad, _product(y_MN.T, x_MK.T), y_MN.sum(dim=0)


class _BiasedProduct(torch.autograd.Function):
    """y = bias + a @ b, as in torch.addmm."""

    @staticmethod
    def forward(ctx: Any, bias_M1: Tensor, a_MK: Tensor, b_KN: Tensor) -> Tensor:
        ctx.save_for_backward(a_MK, b_KN)
        return _product(a_MK, b_KN.T).add_(bias_M1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a_MK, b_KN = ctx.saved_tensors
        (y_MN,) = grads
        return y_MN.sum(dim=1, keepdim=True), _product(y_MN, b_KN), _product(a_MK.T, y_MN.T)


def _linear(x: Tensor, weight_NK: Tensor, bias_N: Tensor) -> Tensor:
    y_MN: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), weight_NK, bias_N)
    return y_MN.view(*x.shape[:-1], -1)


def _biased_product(bias_M1: Tensor, a_MK: Tensor, b_KN: Tensor) -> Tensor:
    y_MN: Tensor = _BiasedProduct.apply(bias_M1, a_MK, b_KN)
    return y_MN


_REPLACED: dict[Any, Callable[..., Tensor]] = {F.linear: _linear, torch.addmm: _biased_product}
