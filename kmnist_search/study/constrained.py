"""A sampler that asks another one again until its proposal is allowed."""

from collections.abc import Callable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from kmnist_search.errors import ConfigError
from kmnist_search.optuna_internals import FIXED_PARAMS_KEY

#: Tells whether hyperparameters may be proposed.
Allows = Callable[[Mapping[str, Any]], bool]

#: How often the sampler is asked, and how often hyperparameters are drawn at random after that.
ASKED, DRAWN = 100, 20_000


class ConstrainedSampler(BaseSampler):
    """Proposes what another sampler does, under a condition on all hyperparameters together.

    So no trial is spent on what is not wanted, and the other sampler learns from allowed trials alone.

    Args:
        sampler: proposes.
        fallback: proposes when `sampler` proposes nothing that is allowed.
        space: the hyperparameters that are proposed together.
        allows: tells whether hyperparameters may be proposed.
    """

    def __init__(
        self,
        sampler: BaseSampler,
        fallback: BaseSampler,
        space: Mapping[str, BaseDistribution],
        allows: Allows,
    ) -> None:
        self._sampler, self._fallback, self._space, self._allows = sampler, fallback, space, allows

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        fixed = trial.system_attrs.get(FIXED_PARAMS_KEY, {})
        for number in range(ASKED + DRAWN):
            proposed = self._proposed(self._sampler if number < ASKED else self._fallback, study, trial)
            if self._allows(proposed | fixed):
                return proposed
        raise ConfigError(
            f"[constraints] of study {study.study_name!r} are so tight that none of {DRAWN:,} random nets of [space] "
            "is allowed. Let [space] begin with smaller nets, or raise the constraints."
        )

    def _proposed(self, sampler: BaseSampler, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        together = sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))
        return {
            name: together[name] if name in together else sampler.sample_independent(study, trial, name, distribution)
            for name, distribution in self._space.items()
        }

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)
