"""Forward and backward pass of S PatchMLPs of one architecture at once, in matrix products and fused kernels.

Written by hand, without autograd: products write the gradients of matrices directly into one flat buffer, those of
vectors go as partial sums into another, and a residual branch needs no kernel of its own. `kmnist_search.model` defines
the model; the tests compare the two.

Legend: S replicas, N tokens, B images of a batch, R = N*B rows (tokens first), D features, P pixels per patch (padded),
X = B*D, T token width, C channel width, K slots of partial sums, V elements of the vectors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kmnist_search.config import PatchMLPConfig
from kmnist_search.engine.flat_layout import FlatLayout
from kmnist_search.engine.kernels.activation import bias_act, bias_act_backward
from kmnist_search.engine.kernels.norm import Normed, ResidualBiasAxis, residual_norm, residual_norm_backward

#: Least rows that one slot of partial sums adds up, and most slots: two programs for each of the 132 multiprocessors of
#: an H200, so that one loads while the other adds (reasoned, not measured).
ROWS_PER_SLOT, MAX_SLOTS = 32, 264


class Weights:
    """Parameters as views of flat buffers, by their names in the model."""

    def __init__(self, layout: FlatLayout, matrices_SM: Tensor, vectors_SV: Tensor) -> None:
        self._matrices = {name: segment.view(matrices_SM) for name, segment in layout.matrices.items()}
        self._vectors = {name: segment.view(vectors_SV) for name, segment in layout.vectors.items()}

    def matrix(self, name: str) -> Tensor:
        return self._matrices[name]

    def vector(self, name: str) -> Tensor:
        return self._vectors[name]

    def norm(self, name: str) -> tuple[Tensor | None, Tensor | None]:
        """Return gamma and beta of a norm, (S, D) each; both None if the model has no norms."""
        return self._vectors.get(f"{name}.norm.weight"), self._vectors.get(f"{name}.norm.bias")


class Gradients:
    """The buffers of the gradients. Each backward pass overwrites every element except the padding.

    Attributes:
        matrices_SM: in the dtype of the activations.
        vectors_SV: float32.
    """

    def __init__(
        self, layout: FlatLayout, replicas: int, batch_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        rows = layout.config.num_tokens * batch_size
        slots = min(max(rows // ROWS_PER_SLOT, 1), MAX_SLOTS)
        self.layout = layout
        self.matrices_SM = torch.zeros(replicas, layout.num_matrix, dtype=dtype, device=device)
        self.vectors_SV = torch.zeros(replicas, layout.num_vector, device=device)
        self._partials_SKV = torch.zeros(replicas, slots, layout.num_vector - layout.num_single, device=device)
        self._rows_of_token_biases = torch.zeros(layout.config.num_blocks, replicas, rows, device=device)

    def matrix(self, name: str) -> Tensor:
        return self.layout.matrices[name].view(self.matrices_SM)

    def single(self, name: str) -> Tensor:
        """Return the place of the gradient of a vector that has no partial sums."""
        return self.layout.vectors[name].view(self.vectors_SV)

    def partial(self, name: str) -> Tensor:
        """Return the place of a vector's partial sums, (S, K, n)."""
        segment, before = self.layout.vectors[name], self.layout.num_single
        return self._partials_SKV[:, :, segment.begin - before : segment.end - before]

    def norm(self, name: str) -> tuple[Tensor | None, Tensor | None]:
        """Return the place of the partial sums of a norm's gamma and beta; both None without norms."""
        if f"{name}.norm.weight" not in self.layout.vectors:
            return None, None
        return self.partial(f"{name}.norm.weight"), self.partial(f"{name}.norm.bias")

    def token_rows(self, block: int) -> Tensor:
        """Return the place of the sums of rows, (S, R), that make up the gradient of a token MLP's second bias."""
        return self._rows_of_token_biases[block]

    def sum_partials(self) -> None:
        """Sum the partial sums into the gradients of the vectors."""
        blocks, tokens = self.layout.config.num_blocks, self.layout.config.num_tokens
        images = self._rows_of_token_biases.unflatten(2, (tokens, -1))
        token_biases = self.vectors_SV[:, : blocks * tokens].unflatten(1, (blocks, tokens))
        torch.sum(images, dim=3, out=token_biases.transpose(0, 1))
        torch.sum(self._partials_SKV, dim=1, out=self.vectors_SV[:, self.layout.num_single :])


@dataclass(frozen=True, eq=False, kw_only=True)
class Noise:
    """The drop-path factors and dropout masks of one step; None where the configuration needs none.

    Attributes:
        factors_K2SB: of the branches of each block, see `model.drop_path_factors`.
        masks: of the hidden layers, two a block: (S, T, X) of the token MLP, (S, R, C) of the channel MLP.
    """

    factors_K2SB: Tensor | None = None
    masks: list[Tensor] | None = None

    def factors(self, block: int, branch: int) -> Tensor | None:
        return None if self.factors_K2SB is None else self.factors_K2SB[block, branch]

    def mask(self, block: int, branch: int) -> Tensor | None:
        return None if self.masks is None else self.masks[2 * block + branch]


NO_NOISE = Noise()


@dataclass(frozen=True, eq=False, kw_only=True)
class SavedActivations:
    """What the backward pass needs of its forward pass.

    Attributes:
        logits_SBL: without their bias.
        normed: the residual stream and its norm before the first branch and after each.
        hidden: the hidden layer of each branch, (S, T, X) or (S, R, C), without its bias.
        activated: the hidden layer after bias, activation and dropout.
    """

    patches_SRP: Tensor
    normed: list[Normed]
    hidden: list[Tensor]
    activated: list[Tensor]
    features_SBD: Tensor
    logits_SBL: Tensor


class TritonNet:
    """S PatchMLPs of one architecture, with layer norms or without norms."""

    def __init__(self, config: PatchMLPConfig) -> None:
        self.config = config

    def forward(
        self, weights: Weights, patches_SNBP: Tensor, noise: Noise = NO_NOISE, *, keep: bool = True
    ) -> SavedActivations:
        """Return the logits and, unless `keep` is False, what `backward` needs."""
        batch_size = patches_SNBP.shape[2]
        patches_SRP = patches_SNBP.flatten(1, 2)
        gamma, beta = weights.norm(self._norm_after(-1))
        state = residual_norm(
            product(patches_SRP, weights.matrix("stem.weight").mT),
            weights.vector("stem.bias"),
            bias_axis="feature",
            batch_size=batch_size,
            gamma_SD=gamma,
            beta_SD=beta,
        )
        normed, hidden, activated = [state], [], []
        for branch in range(2 * self.config.num_blocks):
            h, a, state = self._branch(weights, branch, state, noise, batch_size)
            if keep:
                hidden.append(h)
                activated.append(a)
                normed.append(state)
        features_SBD = state.n_SRD.unflatten(1, (-1, batch_size)).mean(dim=1)
        return SavedActivations(
            patches_SRP=patches_SRP,
            normed=normed,
            hidden=hidden,
            activated=activated,
            features_SBD=features_SBD,
            logits_SBL=product(features_SBD, weights.matrix("classifier.weight").mT),
        )

    def backward(
        self, weights: Weights, gradients: Gradients, saved: SavedActivations, dlogits_SBL: Tensor, noise: Noise
    ) -> None:
        """Fill `gradients`, except for the classifier's bias. Consumes the lists of `saved`."""
        product(dlogits_SBL.mT, saved.features_SBD, out=gradients.matrix("classifier.weight"))
        dn = product(dlogits_SBL, weights.matrix("classifier.weight")).div_(self.config.num_tokens)
        dx_SRD: Tensor | None = None
        for branch in reversed(range(2 * self.config.num_blocks)):
            dn, dx_SRD = self._branch_backward(weights, gradients, saved, branch, dn, dx_SRD, noise)
        _, dy_SRD = self._norm_backward(weights, gradients, saved.normed.pop(), -1, dn, dx_SRD, NO_NOISE)
        product(dy_SRD.mT, saved.patches_SRP, out=gradients.matrix("stem.weight"))
        gradients.sum_partials()

    def _branch(
        self, weights: Weights, branch: int, before: Normed, noise: Noise, batch_size: int
    ) -> tuple[Tensor, Tensor, Normed]:
        """Return the hidden layer of a branch, the same after activation, and the next residual stream."""
        name, mask = self._mlp(branch), noise.mask(*divmod(branch, 2))
        activation = self.config.activation
        if _is_token(branch):
            n_SNX = before.n_SRD.unflatten(1, (self.config.num_tokens, -1)).flatten(2)
            hidden = product(weights.matrix(f"{name}.weight1_NT").mT, n_SNX)
            bias = weights.vector(f"{name}.bias1_T")
            activated = bias_act(hidden, bias, bias_axis="row", activation=activation, mask=mask)
            y_SRD = product(weights.matrix(f"{name}.weight2_NT"), activated).view_as(before.x_SRD)
        else:
            hidden = product(before.n_SRD, weights.matrix(f"{name}.linear1.weight").mT)
            bias = weights.vector(f"{name}.linear1.bias")
            activated = bias_act(hidden, bias, bias_axis="column", activation=activation, mask=mask)
            y_SRD = product(activated, weights.matrix(f"{name}.linear2.weight").mT)
        gamma, beta = weights.norm(self._norm_after(branch))
        after = residual_norm(
            y_SRD,
            weights.vector(self._last_bias(branch)),
            bias_axis=_bias_axis(branch),
            batch_size=batch_size,
            residual_SRD=before.x_SRD if self.config.skip else None,
            scale_SB=noise.factors(*divmod(branch, 2)),
            gamma_SD=gamma,
            beta_SD=beta,
        )
        return hidden, activated, after

    def _branch_backward(
        self,
        weights: Weights,
        gradients: Gradients,
        saved: SavedActivations,
        branch: int,
        dn: Tensor,
        dx_SRD: Tensor | None,
        noise: Noise,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the gradients of the output of the norm before the branch, and of the residual stream around it."""
        name, mask, activation = self._mlp(branch), noise.mask(*divmod(branch, 2)), self.config.activation
        hidden, activated = saved.hidden.pop(), saved.activated.pop()
        dx_SRD, dy_SRD = self._norm_backward(weights, gradients, saved.normed.pop(), branch, dn, dx_SRD, noise)
        n_SRD = saved.normed[-1].n_SRD
        if _is_token(branch):
            weight1_SNT, weight2_SNT = weights.matrix(f"{name}.weight1_NT"), weights.matrix(f"{name}.weight2_NT")
            n_SNX, dy_SNX = (x.unflatten(1, (self.config.num_tokens, -1)).flatten(2) for x in (n_SRD, dy_SRD))
            product(dy_SNX, activated.mT, out=gradients.matrix(f"{name}.weight2_NT"))
            dhidden = bias_act_backward(
                product(weight2_SNT.mT, dy_SNX),
                hidden,
                weights.vector(f"{name}.bias1_T"),
                bias_axis="row",
                activation=activation,
                dbias_SKn=gradients.partial(f"{name}.bias1_T"),
                mask=mask,
            )
            product(n_SNX, dhidden.mT, out=gradients.matrix(f"{name}.weight1_NT"))
            dn = product(weight1_SNT, dhidden).view_as(n_SRD)
        else:
            product(dy_SRD.mT, activated, out=gradients.matrix(f"{name}.linear2.weight"))
            dhidden = bias_act_backward(
                product(dy_SRD, weights.matrix(f"{name}.linear2.weight")),
                hidden,
                weights.vector(f"{name}.linear1.bias"),
                bias_axis="column",
                activation=activation,
                dbias_SKn=gradients.partial(f"{name}.linear1.bias"),
                mask=mask,
            )
            product(dhidden.mT, n_SRD, out=gradients.matrix(f"{name}.linear1.weight"))
            dn = product(dhidden, weights.matrix(f"{name}.linear1.weight"))
        return dn, dx_SRD if self.config.skip else None

    def _norm_backward(
        self,
        weights: Weights,
        gradients: Gradients,
        normed: Normed,
        branch: int,
        dn: Tensor,
        dx_SRD: Tensor | None,
        noise: Noise,
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of the residual stream after a branch (-1: the stem) and of the branch's output."""
        gamma, _ = weights.norm(self._norm_after(branch))
        dgamma, dbeta = gradients.norm(self._norm_after(branch))
        is_token = _bias_axis(branch) == "token"
        return residual_norm_backward(
            dn,
            normed,
            bias_axis=_bias_axis(branch),
            batch_size=normed.x_SRD.shape[1] // self.config.num_tokens,
            dbias=gradients.token_rows(branch // 2) if is_token else gradients.partial(self._last_bias(branch)),
            dx_SRD=dx_SRD,
            scale_SB=noise.factors(*divmod(branch, 2)),
            gamma_SD=gamma,
            dgamma_SKD=dgamma,
            dbeta_SKD=dbeta,
        )

    def _norm_after(self, branch: int) -> str:
        """Return the name of the norm that comes after a branch, -1 being the stem."""
        block, half = divmod(branch + 1, 2)
        return "norm" if block == self.config.num_blocks else f"blocks.{block}.norm{half + 1}"

    @staticmethod
    def _mlp(branch: int) -> str:
        return f"blocks.{branch // 2}.{'token_mlp' if _is_token(branch) else 'channel_mlp'}"

    def _last_bias(self, branch: int) -> str:
        if branch == -1:
            return "stem.bias"
        return f"{self._mlp(branch)}.{'bias2_N' if _is_token(branch) else 'linear2.bias'}"


def product(a_SIJ: Tensor, b_SJK: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Return the matrix product of each replica, (S, I, K); of one replica by `torch.mm`, which has more kernels."""
    if len(a_SIJ) > 1:
        return torch.bmm(a_SIJ, b_SJK, out=out)
    return torch.mm(a_SIJ[0], b_SJK[0], out=None if out is None else out[0]).unsqueeze(0)


def _is_token(branch: int) -> bool:
    return branch % 2 == 0


def _bias_axis(branch: int) -> ResidualBiasAxis:
    return "token" if branch >= 0 and _is_token(branch) else "feature"
