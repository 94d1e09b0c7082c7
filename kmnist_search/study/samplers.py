"""Who proposes and who prunes: optuna's samplers and pruners as a study file names them."""

import warnings
from collections.abc import Mapping

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from kmnist_search.study_file.schema import PrunerConfig, SamplerConfig
from kmnist_search.study_file.space import Choices, FloatRange, Hyperparameter, IntRange

#: The hyperparameters of finished trials as the sampler works on them, by trial id.
Remembered = dict[int, tuple[float, ...]]


def sampler_of(
    config: SamplerConfig, space: Mapping[str, Hyperparameter], seed: int, remembered: Remembered
) -> optuna.samplers.BaseSampler:
    """Return a sampler for one trial.

    Each trial has a seed of its own: samplers that start alike in several processes, or again after a restart, would
    propose the same trials again. What they have in common is `remembered`, which saves time and changes nothing.
    """
    if config.name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return SpaceTPESampler(space, n_startup_trials=config.startup_trials, seed=seed, remembered=remembered)


class SpaceTPESampler(optuna.samplers.TPESampler):
    """Multivariate TPE over a space that is known, so that it need not be inferred from all trials before each.

    Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011; Falkner et al., BOHB, ICML 2018.
    """

    def __init__(
        self, space: Mapping[str, Hyperparameter], *, n_startup_trials: int, seed: int, remembered: Remembered
    ) -> None:
        super().__init__(n_startup_trials=n_startup_trials, multivariate=True, seed=seed)
        distributions = {name: _distribution(spec) for name, spec in sorted(space.items())}
        self._distributions = {name: spec for name, spec in distributions.items() if not spec.single()}
        self._remembered = remembered

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._distributions.copy()

    def _get_internal_repr(
        self, trials: list[FrozenTrial], search_space: dict[str, BaseDistribution], study: Study
    ) -> dict[str, np.ndarray]:
        # optuna converts the hyperparameters of every trial for every proposal: 25 of 60 ms among 10,000 trials.
        if search_space != self._distributions:
            return super()._get_internal_repr(trials, search_space, study)
        rows = [row for trial in trials if (row := self._row(trial, study)) is not None]
        columns = np.array(rows, dtype=float).reshape(len(rows), len(search_space)).T
        return dict(zip(search_space, columns, strict=True))

    def _row(self, trial: FrozenTrial, study: Study) -> tuple[float, ...] | None:
        if (known := self._remembered.get(trial._trial_id)) is not None:
            return known
        params = self._get_params(trial, study)
        if not self._distributions.keys() <= params.keys():
            return None
        row = tuple(spec.to_internal_repr(params[name]) for name, spec in self._distributions.items())
        if trial.state.is_finished():
            self._remembered[trial._trial_id] = row
        return row


def _distribution(spec: Hyperparameter) -> BaseDistribution:
    match spec:
        case Choices(choices=choices):
            return CategoricalDistribution(choices)
        case IntRange(low=low, high=high, step=step, log=log):
            return IntDistribution(low, high, log=log, step=step)
        case FloatRange(low=low, high=high, step=step, log=log):
            return FloatDistribution(low, high, log=log, step=step)


def experimental() -> "warnings.catch_warnings[None]":
    """While entered, optuna does not warn of features it calls experimental; these are used on purpose."""
    return warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning)


def pruner_of(config: PrunerConfig, epochs: int) -> optuna.pruners.BasePruner:
    """Return the pruner, which compares trials by epochs, of which each has `epochs`."""
    min_epochs = min(config.min_epochs, epochs)
    match config.name:
        case "hyperband":
            return optuna.pruners.HyperbandPruner(
                min_resource=min_epochs, max_resource=epochs, reduction_factor=config.reduction_factor
            )
        case "successive_halving":
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=min_epochs, reduction_factor=config.reduction_factor
            )
        case "median":
            return optuna.pruners.MedianPruner(n_warmup_steps=min_epochs)
        case "none":
            return optuna.pruners.NopPruner()
