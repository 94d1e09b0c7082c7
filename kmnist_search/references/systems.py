"""The study `references`, whose trials train the published systems."""

import sys
from collections.abc import Sequence

from kmnist_search.config import TrainConfig
from kmnist_search.config.cost import flops_per_image
from kmnist_search.errors import ConfigError
from kmnist_search.evaluation.metrics import Reference
from kmnist_search.references.published import REFERENCES
from kmnist_search.study_file.builtin import find_study_file
from kmnist_search.study_file.parser import load
from kmnist_search.study_file.schema import (
    ComparisonFile,
    PrunerConfig,
    SamplerConfig,
    StudyTable,
    System,
    system_space,
)

NAME = "references"


def chosen(only: Sequence[str]) -> tuple[Reference, ...]:
    """Return the references with the given names; S2 includes its experiments, and no name means all.

    Raises:
        ConfigError: a name is unknown.
    """
    names = [reference.name for reference in REFERENCES]
    found = {name.removeprefix("references/").upper(): name for name in only}
    for name, typed in found.items():
        if name not in names:
            raise ConfigError(f"--only {typed}: there is no such reference. There are: {', '.join(names)}")
    if not found:
        return REFERENCES
    return tuple(each for each in REFERENCES if each.name in found or each.name.partition("-")[0] in found)


def systems() -> dict[str, System]:
    """Return all systems by name, from the built-in studies."""
    files = {reference.name: load(find_study_file(reference.study)) for reference in REFERENCES}
    return {name: System(data=file.data, train=file.train, fixed=file.fixed) for name, file in files.items()}


def study_file(references: Sequence[Reference], *, name: str, seeds: int, epochs: int | None) -> ComparisonFile:
    """Return the study; its queue has a trial of each reference for each seed.

    Args:
        references: the ones to train; the study contains all of them.
        name: name of the study.
        seeds: trials of each reference.
        epochs: limit of epochs for each; None for the published numbers.
    """
    known = systems()
    enqueue = [
        {"system": each.name, "repeat": repeat, "epochs": min(epochs or sys.maxsize, known[each.name].train.epochs)}
        for repeat in range(seeds)
        for each in references
    ]
    return ComparisonFile(
        study=StudyTable(
            name=name, sampler=SamplerConfig(name="random"), pruner=PrunerConfig(name="none"), trials=len(enqueue)
        ),
        train=TrainConfig(epochs=max(system.train.epochs for system in known.values())),
        space=system_space(known),
        enqueue=tuple(enqueue),
        systems=known,
    )


def flops(file: ComparisonFile, images: int) -> float:
    """Return the floating-point operations of all requested trainings, each on `images` images."""
    return sum(
        3.0 * images * config.train.epochs * flops_per_image(config.model)
        for config in (file.training(entry).config for entry in file.enqueue)
    )
