"""The ways to search that are compared: ours, optuna's, and what might be better than either."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial

from kmnist_search.config.seeds import derived_seed
from kmnist_search.study.halving import Halving
from kmnist_search.study.samplers import Samplers, pruner_of
from kmnist_search.study.second_objective import Sizes
from kmnist_search.study_file.parser import load
from kmnist_search.study_file.schema import PrunerConfig, SamplerConfig, SearchFile
from kmnist_search.study_file.space import Choices, Hyperparameter, IntRange

EPOCHS = 9
FILE = load(Path(__file__).with_name("kmnist.toml"))
assert isinstance(FILE, SearchFile)
SPACE = FILE.space
SIZES = Sizes(FILE.num_parameters)
#: The same space with choices that are words, which have no order.
WORDS: dict[str, Hyperparameter] = {
    name: Choices(choices=tuple(map(str, spec.choices))) if isinstance(spec, Choices) else spec
    for name, spec in SPACE.items()
}
#: The same space with the positions of choices, for samplers of optuna's that know no order of choices.
POSITIONS: dict[str, Hyperparameter] = {
    name: IntRange(low=0, high=len(spec.choices) - 1) if isinstance(spec, Choices) else spec
    for name, spec in SPACE.items()
}


def as_written(trial: Trial) -> dict[str, float]:
    """Suggest each hyperparameter as a trial of the product does."""
    return {name: spec.suggest(trial, name) for name, spec in SPACE.items()}


def as_words(trial: Trial) -> dict[str, float]:
    """Suggest each choice as a word."""
    return {name: float(spec.suggest(trial, name)) for name, spec in WORDS.items()}


def by_position(trial: Trial) -> dict[str, float]:
    """Suggest each choice by its position."""
    proposed = {name: spec.suggest(trial, name) for name, spec in POSITIONS.items()}
    return {
        name: float(spec.choices[int(proposed[name])]) if isinstance(spec, Choices) else proposed[name]
        for name, spec in SPACE.items()
    }


MakeSampler = Callable[[int, int], optuna.samplers.BaseSampler]


@dataclass(eq=False, kw_only=True)
class SamplerAndRule:
    """A way to search: see `simulation.Way`."""

    name: str
    make_sampler: MakeSampler
    make_pruner: Callable[[], optuna.pruners.BasePruner] = optuna.pruners.NopPruner
    suggest: Callable[[Trial], dict[str, float]] = as_written
    halving: Halving | None = None
    lasting: bool = False
    _kept: dict[int, optuna.samplers.BaseSampler] = field(default_factory=dict)

    def sampler(self, number: int, seed: int) -> optuna.samplers.BaseSampler:
        if not self.lasting:
            return self.make_sampler(number, seed)
        if seed not in self._kept:
            self._kept = {seed: self.make_sampler(0, seed)}
        return self._kept[seed]

    def pruner(self) -> optuna.pruners.BasePruner:
        return self.make_pruner()


def _random(number: int, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=derived_seed(seed, number, 1))


def _default(number: int, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=derived_seed(seed, number, 1))


def _ours(space: dict[str, Hyperparameter], startup: int, name: str = "tpe", sizes: Sizes | None = None) -> MakeSampler:
    config = SamplerConfig.model_validate({"name": name, "startup_trials": startup})
    made: dict[int, Samplers] = {}

    def sampler(number: int, seed: int) -> optuna.samplers.BaseSampler:
        if seed not in made:
            made[seed] = Samplers(config, space, epochs=EPOCHS, maximizes=True, sizes=sizes)
        return made[seed].sampler(derived_seed(seed, number, 1))

    return sampler


def _rule(name: str, factor: int = 3, min_epochs: int = 1) -> Callable[[], optuna.pruners.BasePruner]:
    config = PrunerConfig.model_validate({"name": name, "min_epochs": min_epochs, "reduction_factor": factor})
    return lambda: pruner_of(config, EPOCHS)


def _gp(number: int, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.GPSampler(seed=derived_seed(seed, number, 1))


def _cma(number: int, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


def pausing(factor: int, min_epochs: int = 1, sizes: Sizes | None = None) -> Halving:
    return Halving.of(min_epochs=min_epochs, epochs=EPOCHS, factor=factor, maximizes=True, sizes=sizes)


def _way(name: str, sampler: MakeSampler, **options: Any) -> SamplerAndRule:
    return SamplerAndRule(name=name, make_sampler=sampler, **options)


STOP2, STOP3, HYPERBAND = _rule("successive_halving", 2), _rule("successive_halving", 3), _rule("hyperband", 3)

WAYS = [
    _way("random", _random),
    _way("random, halving stops", _random, make_pruner=STOP3),
    _way("random, halving pauses", _random, halving=pausing(3)),
    _way("optuna's default", _default, make_pruner=optuna.pruners.MedianPruner),
    _way("TPE, choices without order", _ours(WORDS, 10), suggest=as_words),
    _way("TPE, choices without order, halving by 2 stops", _ours(WORDS, 6), suggest=as_words, make_pruner=STOP2),
    _way("TPE, choices without order, hyperband", _ours(WORDS, 10), suggest=as_words, make_pruner=HYPERBAND),
    _way("TPE, choices without order, halving by 3 pauses", _ours(WORDS, 10), suggest=as_words, halving=pausing(3)),
    _way("TPE", _ours(SPACE, 10)),
    _way("TPE, median pruner", _ours(SPACE, 10), make_pruner=_rule("median")),
    _way("TPE, halving by 3 stops", _ours(SPACE, 10), make_pruner=STOP3),
    _way("TPE, hyperband", _ours(SPACE, 10), make_pruner=HYPERBAND),
    _way("TPE, halving by 2 pauses", _ours(SPACE, 10), halving=pausing(2)),
    _way("TPE, halving by 3 pauses", _ours(SPACE, 10), halving=pausing(3)),
    _way("TPE after 5, halving by 3 pauses", _ours(SPACE, 5), halving=pausing(3)),
    _way("TPE after 20, halving by 3 pauses", _ours(SPACE, 20), halving=pausing(3)),
    _way("optuna's GP", _gp, suggest=by_position),
    _way("GP of log errors", _ours(SPACE, 10, "gp")),
    _way("GP of log errors, halving by 3 pauses", _ours(SPACE, 10, "gp"), halving=pausing(3)),
    _way("GP of log errors, halving by 3 pauses, from 3", _ours(SPACE, 10, "gp"), halving=pausing(3, 3)),
    _way("GP of log errors, halving by 2 pauses, from 2", _ours(SPACE, 10, "gp"), halving=pausing(2, 2)),
    _way("TPE, halving by 3 pauses, from 3", _ours(SPACE, 10), halving=pausing(3, 3)),
    _way("random, halving by size", _random, halving=pausing(3, 3, SIZES)),
    _way("GP of log errors, halving by size", _ours(SPACE, 10, "gp"), halving=pausing(3, 3, SIZES)),
    _way("GP of log errors and sizes", _ours(SPACE, 10, "gp", SIZES)),
    _way("GP of log errors and sizes, halving by size", _ours(SPACE, 10, "gp", SIZES), halving=pausing(3, 3, SIZES)),
    _way("CMA-ES", _cma, suggest=by_position, lasting=True),
]
