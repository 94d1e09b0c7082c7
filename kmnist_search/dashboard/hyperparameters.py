"""What the trials of a study have in common: ranges, attributes. Knows nothing of requests or databases."""

import numbers

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

Ranges = list[tuple[str, BaseDistribution]]


class Hyperparameters:
    """Collects from trials, each added as often as it changes.

    optuna-dashboard collects them too, from all trials each time while none waits or runs, and takes a trial that
    waits for one that shares no hyperparameter with the others.

    Attributes:
        has_reports: whether any trial has reported.
    """

    def __init__(self) -> None:
        self._all: dict[str, list[BaseDistribution]] = {}
        self._common: dict[str, BaseDistribution] | None = None
        self._attributes: dict[str, bool] = {}
        self.has_reports = False

    @property
    def all(self) -> Ranges:
        """Every hyperparameter of any trial; one name can have several kinds of range."""
        return [(name, each) for name, ranges in sorted(self._all.items()) for each in ranges]

    @property
    def common(self) -> Ranges:
        """Those that every trial has."""
        return sorted((self._common or {}).items(), key=lambda item: item[0])

    @property
    def attributes(self) -> list[tuple[str, bool]]:
        """The names of user attributes, and whether all trials have a number there."""
        return sorted(self._attributes.items())

    def add(self, trial: FrozenTrial) -> None:
        """Take in what a trial has now."""
        for name, value in trial.user_attrs.items():
            is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            self._attributes[name] = is_number and self._attributes.get(name, True)
        if trial.state == TrialState.FAIL:
            return
        self.has_reports = self.has_reports or bool(trial.intermediate_values)
        if trial.distributions and trial.state.is_finished():
            self._narrow(trial.distributions)
        for name, distribution in trial.distributions.items():
            self._widen(self._all.setdefault(name, []), distribution)

    def _narrow(self, ranges: dict[str, BaseDistribution]) -> None:
        if self._common is None:
            self._common = dict(ranges)
            return
        both = {name: _joined(known, ranges[name]) for name, known in self._common.items() if name in ranges}
        self._common = {name: each for name, each in both.items() if each is not None}

    @staticmethod
    def _widen(ranges: list[BaseDistribution], distribution: BaseDistribution) -> None:
        for index, known in enumerate(ranges):
            joined = _joined(known, distribution)
            if joined is not None:
                ranges[index] = joined
                return
        ranges.append(distribution)


def _joined(one: BaseDistribution, other: BaseDistribution) -> BaseDistribution | None:
    """Return the range of both; None if they are of different kinds."""
    if one is other or one == other:
        return one
    if isinstance(one, CategoricalDistribution) and isinstance(other, CategoricalDistribution):
        return CategoricalDistribution(tuple(dict.fromkeys((*one.choices, *other.choices))))
    if isinstance(one, FloatDistribution) and isinstance(other, FloatDistribution) and _are_alike(one, other):
        return FloatDistribution(min(one.low, other.low), max(one.high, other.high), log=one.log, step=one.step)
    if isinstance(one, IntDistribution) and isinstance(other, IntDistribution) and _are_alike(one, other):
        return IntDistribution(min(one.low, other.low), max(one.high, other.high), log=one.log, step=one.step)
    return None


def _are_alike(one: FloatDistribution | IntDistribution, other: FloatDistribution | IntDistribution) -> bool:
    return (one.step, one.log) == (other.step, other.log)
