"""Samplers and pruners: Optuna's, made from the names and options in a study file."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from kmnist_search.optuna_internals.samplers import KnownRows, KnownSpaceTPESampler, Positions
from kmnist_search.study.constrained import Allows, ConstrainedSampler
from kmnist_search.study.extrapolation import log_errors
from kmnist_search.study.halving import Halving
from kmnist_search.study.second_objective import Sizes, scalarised
from kmnist_search.study_file.schema import PrunerConfig, SamplerConfig
from kmnist_search.study_file.space import Choices, FloatRange, Hyperparameter, IntRange

#: Among more trials a Gaussian process would take too long, and TPE proposes.
MOST_TRIALS = 400


class Samplers:
    """Makes the samplers of one study, a new one for each trial. They keep the order of numeric choices.

    Hyperparameters with a condition are proposed each by itself, from the trials that have them.

    - "random".
    - "tpe": Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011; all hyperparameters together
      as in Falkner et al., BOHB, ICML 2018.
    - "gp": expected improvement under a Gaussian process (Jones et al. 1998; Ament et al., NeurIPS 2023) of the
      logarithm of the final error, which is extrapolated for trials that paused or ended early. Small nets may be a
      second objective. Among more than MOST_TRIALS trials TPE proposes, by the metric alone.
    """

    def __init__(
        self,
        config: SamplerConfig,
        space: Mapping[str, Hyperparameter],
        *,
        epochs: int,
        maximizes: bool,
        allows: Allows | None = None,
        sizes: Sizes | None = None,
    ) -> None:
        """Take the sampler's name and options, and what it proposes.

        Args:
            config: the sampler's name and options.
            space: the search space.
            epochs: of a whole training.
            maximizes: whether the metric is an accuracy; else it is a loss.
            allows: tells whether the constraints allow hyperparameters; None if there are no constraints.
            sizes: of nets, if small ones are the second objective.
        """
        self._config, self._allows, self._sizes = config, allows, sizes
        self._varied = varied_in(space)
        ordered = {name for name in self._varied if isinstance(spec := space[name], Choices) and spec.are_ordered}
        self._positions = Positions(self._varied, ordered)
        self._losses = partial(log_errors, epochs=epochs, maximizes=maximizes)
        #: A cache that the samplers share; it does not change their proposals.
        self._known_rows: KnownRows = {}

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Return a sampler for one trial.

        With equal seeds, several processes, or one process after a restart, would propose the same configurations
        again: the seed must differ for each trial.
        """
        sampler = self._unconstrained(seed)
        if self._allows is None:
            return sampler
        return ConstrainedSampler(sampler, optuna.samplers.RandomSampler(seed=seed), self._varied, self._allows)

    def _unconstrained(self, seed: int) -> optuna.samplers.BaseSampler:
        startup = self._config.startup_trials
        tpe = KnownSpaceTPESampler(
            self._positions, self._known_rows, n_startup_trials=startup, multivariate=True, seed=seed
        )
        match self._config.name:
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)
            case "tpe":
                return tpe
            case "gp":
                from kmnist_search.optuna_internals.gp_sampler import KnownSpaceGPSampler

                return KnownSpaceGPSampler(
                    self._positions,
                    self._losses if self._sizes is None else partial(self._weighed, self._sizes, seed),
                    most=MOST_TRIALS,
                    allows=self._allows,
                    independent=tpe,
                    n_startup_trials=startup,
                    seed=seed,
                )

    def _weighed(self, sizes: Sizes, seed: int, trials: Sequence[FrozenTrial]) -> NDArray[np.float64]:
        return scalarised(self._losses(trials), [sizes(trial) for trial in trials], seed=seed)


def varied_in(space: Mapping[str, Hyperparameter]) -> dict[str, BaseDistribution]:
    """Return the distributions of the hyperparameters that each trial has, and that differ between trials."""
    every = {name: _distribution(spec) for name, spec in sorted(space.items()) if not spec.when}
    return {name: distribution for name, distribution in every.items() if not distribution.single()}


def _distribution(spec: Hyperparameter) -> BaseDistribution:
    match spec:
        case Choices(choices=choices):
            return CategoricalDistribution(choices)
        case IntRange(low=low, high=high, step=step, log=log):
            return IntDistribution(low, high, log=log, step=step)
        case FloatRange(low=low, high=high, step=step, log=log):
            return FloatDistribution(low, high, log=log, step=step)


def experimental() -> "warnings.catch_warnings[None]":
    """While entered, suppress Optuna's warnings about experimental features; we use them on purpose."""
    return warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning)


def pruner_of(config: PrunerConfig, epochs: int) -> optuna.pruners.BasePruner:
    """Return the pruner for trials of `epochs` epochs each; it compares trials by epoch."""
    min_epochs = config.first_rung(epochs)
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
        case "asha" | "none":
            return optuna.pruners.NopPruner()


def halving_of(config: PrunerConfig, *, epochs: int, maximizes: bool, sizes: Sizes | None = None) -> Halving | None:
    """Return what pauses trials of `epochs` epochs each; None if the study has no such pruner."""
    if config.name != "asha":
        return None
    return Halving.of(
        min_epochs=config.first_rung(epochs),
        epochs=epochs,
        factor=config.reduction_factor,
        maximizes=maximizes,
        sizes=sizes,
    )
