"""A study's settings in words, for its report and for its note in the dashboard."""

from collections.abc import Mapping, Sequence
from typing import Any

from kmnist_search.study_file.schema import PrunerConfig, StudyTable
from kmnist_search.study_file.space import Choices, Hyperparameter
from kmnist_search.wording import count, value as shown

_SAMPLERS = {"tpe": "TPE", "gp": "a Gaussian process"}


def values_text(spec: Hyperparameter) -> str:
    """Return the values of a hyperparameter, such as "32, 64" or "1 to 9, by 2"."""
    if isinstance(spec, Choices):
        return ", ".join(shown(choice) for choice in spec.choices)
    step = f", by {shown(spec.step)}" if spec.step and spec.step != 1 else ""
    return f"{shown(spec.low)} to {shown(spec.high)}{step}"


def scale_text(spec: Hyperparameter) -> str:
    """Return how the values of a hyperparameter are proposed: as a list, or on which scale."""
    if isinstance(spec, Choices):
        return "ordered list" if spec.are_ordered else "list"
    return "log" if spec.log else "linear"


def condition_text(spec: Hyperparameter) -> str:
    """Return when and how often a hyperparameter is searched; empty if always, and once."""
    conditions = [f"{name} is {' or '.join(map(shown, values))}" for name, values in spec.when.items()]
    when = f"if {' and '.join(conditions)}" if conditions else ""
    return ", ".join(part for part in (when, "for each block" if spec.each_block else "") if part)


def sampler_text(study: StudyTable) -> str:
    """Return how the configurations of a study are proposed."""
    sampler = study.sampler
    if sampler.name == "random":
        return "configurations are random"
    sizes = ", and seeks the best net of each size" if study.second_objective else ""
    after = count(sampler.startup_trials, "random trial")
    return f"{_SAMPLERS[sampler.name]} proposes configurations after {after}{sizes}"


def pruner_text(pruner: PrunerConfig, epochs: int) -> str:
    """Return when trials of so many epochs pause or end early."""
    if pruner.name == "none":
        return "every trial trains to its end"
    after = count(pruner.first_rung(epochs), "epoch")
    if pruner.name == "asha":
        return f"trials pause first after {after}, and about one in {pruner.reduction_factor} goes on"
    kept = "" if pruner.name == "median" else f", and about one trial in {pruner.reduction_factor} is kept"
    return f"the {pruner.name.replace('_', ' ')} pruner ends trials after {after} or more{kept}"


def setting_text(setting: Any) -> str:
    """Return a fixed setting, which may be a table or a list of tables."""
    if isinstance(setting, Mapping):
        return " ".join(f"{name}={shown(each)}" for name, each in setting.items())
    if isinstance(setting, Sequence) and not isinstance(setting, str):
        return count(len(setting), "entry", "entries")
    return shown(setting)
