"""The range of a hyperparameter: a list of choices, or numbers between two bounds.

A trial is any object with the `suggest_*` methods of an optuna trial.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

from pydantic import Field

from kmnist_search.config import Config

Scalar = bool | int | float | str


class Suggester(Protocol):
    """The methods of an optuna trial that suggest values."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...


class Searched(Config):
    """When and how often a hyperparameter is searched.

    Attributes:
        when: the values of others, by name, with which it is searched. Without any it always is.
        each_block: whether each block of the net has a value of its own.
    """

    when: Mapping[str, tuple[Scalar, ...]] = {}
    each_block: bool = False

    def applies(self, params: Mapping[str, Any]) -> bool:
        """Return whether the hyperparameter is searched beside the others in `params`."""
        return all(params.get(name) in values for name, values in self.when.items())


class Choices(Searched):
    """A hyperparameter that takes one of the listed values."""

    choices: tuple[Scalar, ...]

    @property
    def are_ordered(self) -> bool:
        """Whether the choices are numbers, each larger than the one before."""
        are_numbers = all(type(choice) in (int, float) for choice in self.choices)
        return are_numbers and all(a < b for a, b in itertools.pairwise(self.choices))  # type: ignore[operator]

    def suggest(self, trial: Suggester, name: str) -> Any:
        return trial.suggest_categorical(name, self.choices)

    def values(self) -> tuple[Any, ...]:
        return self.choices

    def contains(self, value: Any) -> bool:
        return any(type(value) is type(choice) and value == choice for choice in self.choices)


class IntRange(Searched):
    """An integer from `low` to `high` (both included), by `step` or evenly on a log scale."""

    low: int
    high: int
    step: Annotated[int, Field(ge=1)] = 1
    log: bool = False

    def suggest(self, trial: Suggester, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def values(self) -> Sequence[int]:
        return range(self.low, self.high + 1, self.step)

    def contains(self, value: Any) -> bool:
        return type(value) is int and self.low <= value <= self.high and (value - self.low) % self.step == 0


class FloatRange(Searched):
    """A number from `low` to `high` (both included), by `step` or evenly on a log scale."""

    low: float
    high: float
    step: Annotated[float, Field(gt=0)] | None = None
    log: bool = False

    def suggest(self, trial: Suggester, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def values(self) -> tuple[float, float]:
        return self.low, self.high

    def contains(self, value: Any) -> bool:
        if type(value) not in (int, float) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return bool(abs(steps - round(steps)) < 1e-6)


Hyperparameter = Choices | IntRange | FloatRange


def of_block(name: str, block: int) -> str:
    """Return the name of the hyperparameter of one block, the first of which is 1."""
    return f"{name}_{block}"


def block_by_block(space: Mapping[str, Hyperparameter], num_blocks: Sequence[int]) -> dict[str, Hyperparameter]:
    """Return the space as trials have it: one hyperparameter for each block where each block has a value of its own.

    Args:
        space: as a study file has it.
        num_blocks: how many blocks the nets may have. Blocks that not every net has are conditional on it.
    """
    found: dict[str, Hyperparameter] = {}
    for name, spec in space.items():
        if not spec.each_block:
            found[name] = spec
            continue
        for block in range(1, max(num_blocks) + 1):
            having = tuple(number for number in num_blocks if number >= block)
            when = {} if len(having) == len(num_blocks) else {"num_blocks": having}
            found[of_block(name, block)] = spec.model_copy(update={"each_block": False, "when": when})
    return found
