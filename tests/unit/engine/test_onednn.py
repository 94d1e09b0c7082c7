"""Tests of engine/onednn.py: the same products and gradients as torch's own, only by another library."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kmnist_search import model
from kmnist_search.config import PatchMLPConfig
from kmnist_search.engine.onednn import onednn_products
from kmnist_search.model.patch_mlp import PatchMLP

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"),
]

CPU = torch.device("cpu")
NET = PatchMLPConfig(patch_size=4, dim=24, token_width=16, channel_width=40, num_blocks=2)


def logits_and_gradients(net: PatchMLP, images: Tensor, *, by_onednn: bool) -> list[Tensor]:
    net.zero_grad()
    with onednn_products(CPU) if by_onednn else nullcontext():
        logits = net(images)
    F.cross_entropy(logits, torch.arange(len(images)) % 10).backward()
    return [logits.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None)]


def names_of_functions(y: Tensor) -> set[str]:
    """Return the functions that multiply on the way to `y`, as autograd calls them."""
    functions, names = [y.grad_fn], set()
    while functions:
        function = functions.pop()
        if function is not None:
            names.add(function.name())
            functions += [before for before, _ in function.next_functions]
    return {name for name in names if "Linear" in name or "mm" in name.lower()}


def test_logits_and_all_gradients_are_those_of_torch() -> None:
    net = model.build(NET, 0)
    images = torch.randn(6, 28, 28, generator=torch.Generator().manual_seed(0))
    plain, fast = (logits_and_gradients(net, images, by_onednn=by_onednn) for by_onednn in (False, True))
    assert len(plain) == len(fast) == 1 + len(list(net.parameters()))
    for one, other in zip(plain, fast, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 8), (3, 5, 8)], ids=["matrix", "tokens, images and features"])
def test_a_linear_layer_is_replaced_and_passes_its_gradient_on(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float32, requires_grad=True)
    weight, bias = torch.randn(7, 8, requires_grad=True), torch.randn(7, requires_grad=True)
    with onednn_products(CPU):
        y = F.linear(x, weight, bias)
    assert y.shape == (*shape[:-1], 7)
    own = F.linear(x, weight, bias)
    torch.testing.assert_close(y, own)
    assert names_of_functions(y) == {"_LinearBackward"} != names_of_functions(own)
    upstream = torch.randn_like(own)
    ours, torchs = (torch.autograd.grad(each, (x, weight, bias), upstream) for each in (y, own))
    torch.testing.assert_close(ours, torchs)


def test_double_precision_and_autocast_are_left_to_torch() -> None:
    x, weight, bias = (torch.randn(shape, dtype=torch.float64) for shape in ((5, 8), (7, 8), (7,)))
    own = F.linear(x, weight, bias)
    with onednn_products(CPU):
        assert torch.equal(F.linear(x, weight, bias), own)
    x, weight, bias = x.float(), weight.float(), bias.float()
    with torch.autocast("cpu", torch.bfloat16):
        own = F.linear(x, weight, bias)
        with onednn_products(CPU):
            assert torch.equal(F.linear(x, weight, bias), own)
    assert own.dtype == torch.bfloat16
