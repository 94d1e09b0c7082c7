"""Samplers and pruners: Optuna's, made from the names and options in a study file."""

import warnings
from collections.abc import Mapping

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from kmnist_search.optuna_internals import KnownRows, KnownSpaceTPESampler
from kmnist_search.study.halving import Halving
from kmnist_search.study_file.schema import PrunerConfig, SamplerConfig
from kmnist_search.study_file.space import Choices, FloatRange, Hyperparameter, IntRange


def sampler_of(
    config: SamplerConfig, space: Mapping[str, Hyperparameter], seed: int, known_rows: KnownRows
) -> optuna.samplers.BaseSampler:
    """Return a sampler for one trial: random, or multivariate TPE, which keeps the order of numeric choices.

    Hyperparameters with a condition are proposed each by itself, from the trials that have them.

    Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011; Falkner et al., BOHB, ICML 2018.

    Args:
        config: the sampler's name and options.
        space: the search space.
        seed: must differ for each trial. With equal seeds, several processes, or one process after a restart, would
            propose the same configurations again.
        known_rows: a cache that the samplers of one study share; it does not change their proposals.
    """
    if config.name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    varied = varied_in(space)
    ordered = {name for name in varied if isinstance(spec := space[name], Choices) and spec.are_ordered}
    return KnownSpaceTPESampler(
        varied,
        ordered,
        known_rows,
        n_startup_trials=config.startup_trials,
        multivariate=True,
        seed=seed,
    )


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
        case "asha" | "none":
            return optuna.pruners.NopPruner()


def halving_of(config: PrunerConfig, *, epochs: int, maximizes: bool) -> Halving | None:
    """Return what pauses trials of `epochs` epochs each; None if the study has no such pruner."""
    if config.name != "asha":
        return None
    return Halving.of(min_epochs=config.min_epochs, epochs=epochs, factor=config.reduction_factor, maximizes=maximizes)
