"""What is wrong with a study file whose settings, each by itself, are right."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kmnist_search.config import HYPERPARAMETERS, TrialConfig, model_config
from kmnist_search.errors import ConfigError
from kmnist_search.study_file.constraints import SIZE_UNITS
from kmnist_search.study_file.schema import SearchFile
from kmnist_search.study_file.space import Choices

#: Hyperparameters of the model that depend on each other, by group.
COUPLED = (
    ("image_size", "patch_size"),
    ("num_blocks", "token_width", "channel_width"),
    ("skip", "drop_path"),
)
#: The hyperparameters that make a net, or its training, larger.
SIZES = ("dim", "token_width", "channel_width", "num_blocks", "batch_size")

#: Where in the file, and what is wrong there.
Problem = tuple[str, str]


def problems(file: SearchFile) -> Iterator[Problem]:
    """Yield each setting that does not fit to the others."""
    yield from _of_model(file)
    yield from _of_blocks(file)
    yield from _of_conditions(file)
    yield from _of_constraints(file)
    yield from _of_second_objective(file)


def _of_model(file: SearchFile) -> Iterator[Problem]:
    """Build a model configuration for every combination of the values that depend on each other."""
    possible: dict[str, Sequence[Any]] = {name: (value,) for name, value in file.fixed.items()}
    # A searched width is one number, which fits any number of blocks: only fixed lists of widths need a check.
    possible |= {name: spec.values() for name, spec in file.space.items() if not name.endswith("_width")}
    # `layers` excludes all other settings of the shape.
    of_model = tuple(name for name in possible if HYPERPARAMETERS[name] == "model")
    for group in (of_model,) if "layers" in possible else COUPLED:
        values = {name: possible[name] for name in group if name in possible}
        for combination in itertools.product(*values.values()):
            try:
                model_config(dict(zip(values, combination, strict=True)))
            except ConfigError as error:
                tables = [f"[{table}]" for table in _tables_of(values, file.fixed)]
                has = "has" if len(tables) == 1 else "have"
                yield " and ".join(tables), f"{has} values that do not fit together: {error}"


def _tables_of(names: Mapping[str, Any], fixed: Mapping[str, Any]) -> list[str]:
    return sorted({"fixed" if name in fixed else "space" for name in names})


def _of_blocks(file: SearchFile) -> Iterator[Problem]:
    """Look for lists of widths that are tried first with another number of blocks."""
    for number, entry in enumerate(file.enqueue, start=1):
        num_blocks = [entry["num_blocks"]] if "num_blocks" in entry else [*file.num_blocks]
        for name, value in entry.items():
            if isinstance(value, list | tuple) and num_blocks != [len(value)]:
                yield f"[[enqueue]] {number}", f"lists {len(value)} widths in {name}: needs num_blocks = {len(value)}"


def _of_conditions(file: SearchFile) -> Iterator[Problem]:
    """Look for conditions that no trial meets, or that every trial does."""
    for name, spec in file.space.items():
        for other, values in spec.when.items():
            place, condition = f"[space] {name}: when", file.space.get(other)
            if other in file.fixed:
                yield place, f"{other} is in [fixed]. Leave the condition out, or {name}"
            elif not isinstance(condition, Choices) or condition.when:
                yield place, f"{other} must be in [space], with choices and without a condition of its own"
            elif unknown := [value for value in values if not condition.contains(value)]:
                yield place, f"{unknown[0]!r} is not among the choices of {other}"


def _of_constraints(file: SearchFile) -> Iterator[Problem]:
    """Look for nets that are too large: all of the space, or one that is enqueued."""
    if not file.is_constrained:
        return
    nets = _smallest(file, {})
    advice = "Allow more, or let [space] begin with smaller nets"
    for key, most in file.constraints.limits.items():
        if (least := min(file.constraints.size(key, net) for net in nets)) > most:
            what = f"the smallest has {least:,} {SIZE_UNITS[key]}"
            yield f"[constraints] {key}:", f"{most:,} excludes every net of [space]; {what}. {advice}"
    if all(file.constraints.excess(net) for net in nets):
        yield "[constraints]", f"exclude together every net of [space]. {advice}"
    for number, entry in enumerate(file.enqueue, start=1):
        if all(excesses := [file.constraints.excess(net) for net in _smallest(file, entry)]):
            yield f"[[enqueue]] {number}", f"has {excesses[0]}, more than [constraints] allow"


def _of_second_objective(file: SearchFile) -> Iterator[Problem]:
    """Look for a sampler and a pruner that would see the metric alone."""
    if file.study.second_objective is None:
        return
    for key, used, possible in (
        ("sampler", file.study.sampler.name, ("gp", "random")),
        ("pruner", file.study.pruner.name, ("asha", "none")),
    ):
        if used not in possible:
            others = " or ".join(f'"{each}"' for each in possible)
            yield f"[study] {key}:", f'"{used}" sees the metric alone; with second_objective it must be {others}'


def _smallest(file: SearchFile, given: Mapping[str, Any]) -> list[TrialConfig]:
    """Return the smallest net with the given hyperparameters for each size of its patches."""
    net = {name: min(spec.values()) if name in SIZES else spec.values()[0] for name, spec in file.space.items()}
    patches = file.space["patch_size"].values() if "patch_size" in file.space else (None,)
    nets = [{**net, **({} if patch is None else {"patch_size": patch}), **given} for patch in patches]
    return [file.config(net) for net in nets]
