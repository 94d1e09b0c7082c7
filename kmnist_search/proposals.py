"""Who proposes and who prunes: optuna's samplers and pruners as a study file names them."""

import warnings

import optuna

from kmnist_search.study_file import PrunerConfig, SamplerConfig


def sampler_of(config: SamplerConfig, seed: int) -> optuna.samplers.BaseSampler:
    """Return a sampler for one trial.

    Each trial has a seed of its own: samplers that start alike in several processes, or again after a restart, would
    propose the same trials again.
    """
    if config.name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with experimental():
        # group: with multivariate alone, a hyperparameter that not every trial has would be drawn by itself.
        return optuna.samplers.TPESampler(
            n_startup_trials=config.startup_trials, multivariate=True, group=True, seed=seed
        )


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
