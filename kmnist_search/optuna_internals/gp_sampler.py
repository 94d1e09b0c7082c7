"""optuna's Gaussian process with methods overridden. Importing it takes torch and scipy, so it is done when needed."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna._gp.acqf import BaseAcquisitionFunc
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from kmnist_search.optuna_internals.samplers import Positions

#: Returns how bad each trial is, lower is better, (T,).
Losses = Callable[[Sequence[FrozenTrial]], NDArray[np.float64]]


class KnownSpaceGPSampler(GPSampler):
    """optuna's Gaussian process over a known space that keeps the order of choices, and learns from any trial.

    optuna's learns from complete trials alone, and from the metric as it is.

    Args:
        space: what is proposed together.
        losses: tells what the process models, for trials that ended, paused, or run again after a pause.
        most: up to how many trials it proposes: its time grows with their third power.
        allows: tells whether hyperparameters may be proposed; None if all may.
        independent: proposes at first, among more trials, and hyperparameters that not every trial has.
        options: of optuna's sampler.
    """

    def __init__(
        self,
        space: Positions,
        losses: Losses,
        *,
        most: int,
        allows: Callable[[dict[str, Any]], bool] | None,
        independent: BaseSampler,
        **options: Any,
    ) -> None:
        super().__init__(independent_sampler=independent, warn_independent_sampling=False, **options)
        self._known, self._losses, self._most, self._allows = space, losses, most, allows

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._known.space.copy()

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        seen, pending = [], []
        for each in study.get_trials(deepcopy=False):
            if (position := self._known.positioned(each.params)) is None:
                continue
            if each.state == TrialState.RUNNING and not each.intermediate_values:
                pending.append(self._as_trial(study, position))
            elif each.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING):
                seen.append((each, position))
        if len(seen) < self._n_startup_trials:
            return {}
        if len(seen) > self._most:
            return self._independent_sampler.sample_relative(study, trial, search_space)
        losses = self._losses([each for each, _ in seen])
        known = [self._as_trial(study, position, loss) for (_, position), loss in zip(seen, losses, strict=True)]
        proposed = self._sample_relative_impl(study, known, pending, self._known.positions)
        return self._known.chosen(proposed)

    def _optimize_acqf(self, acqf: BaseAcquisitionFunc, best_params: np.ndarray | None) -> np.ndarray:
        """Return the best point, or if it is not allowed the best of many others that is."""
        best = super()._optimize_acqf(acqf, best_params)
        if self._allows is None or self._allowed_at(acqf, best):
            return best
        points = acqf.search_space.sample_normalized_params(self._n_preliminary_samples, self._rng.rng)
        ranked = points[np.argsort(-acqf.eval_acqf_no_grad(points), kind="stable")]
        return next((point for point in ranked if self._allowed_at(acqf, point)), best)

    def _allowed_at(self, acqf: BaseAcquisitionFunc, point: np.ndarray) -> bool:
        assert self._allows is not None
        return self._allows(self._known.chosen(acqf.search_space.get_unnormalized_param(point)))

    def _as_trial(self, study: Study, positions: dict[str, Any], loss: np.floating | None = None) -> FrozenTrial:
        """Return a trial as the process shall see it; without a loss it is one that runs."""
        if loss is None:
            return create_trial(state=TrialState.RUNNING, params=positions, distributions=self._known.positions)
        value = float(loss if study.direction == StudyDirection.MINIMIZE else -loss)
        return create_trial(params=positions, distributions=self._known.positions, value=value)
