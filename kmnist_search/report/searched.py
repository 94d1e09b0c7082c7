"""What a study searched: its images, its search space, how it searched, on which machines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from kmnist_search.charts.machines import Machine, machines, versions
from kmnist_search.data.catalog import TRAINING_IMAGES, title_of
from kmnist_search.data.part_sizes import part_sizes
from kmnist_search.study.study import DATA_KEY, SearchStudy
from kmnist_search.study_file.constraints import SIZE_UNITS
from kmnist_search.study_file.description import (
    condition_text,
    pruner_text,
    sampler_text,
    scale_text,
    setting_text,
    values_text,
)
from kmnist_search.study_file.schema import PlanFile, SearchFile, StudyFile
from kmnist_search.wording import count


@dataclass(frozen=True, kw_only=True)
class SearchedHyperparameter:
    """A row of the search space."""

    name: str
    values: str
    scale: str
    condition: str


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What a study searched.

    Attributes:
        facts: images, epochs, sampler and the like, by what they are.
        space: the hyperparameters that were searched.
        fixed: the settings that were fixed in the study file, by name; all others have their defaults.
        machines: that trained.
    """

    facts: Mapping[str, str]
    space: Sequence[SearchedHyperparameter]
    fixed: Mapping[str, str]
    machines: Sequence[Machine]


def searched(study: SearchStudy, trials: Sequence[FrozenTrial]) -> Searched:
    """Return what a study searched.

    Args:
        study: the study.
        trials: its running and finished trials, with all their details.
    """
    file = study.file
    used = [f"{package} {' and '.join(each)}" for package, each in versions(trials).items()]
    told = {"seed": str(file.study.seed), "versions": ", ".join(used) or "not recorded"}
    where = machines(trials)
    if not isinstance(file, SearchFile):  # its space is what the trainings are listed with
        return Searched(facts={**_plan_facts(file), **told}, space=[], fixed={}, machines=where)
    space = [
        SearchedHyperparameter(
            name=name, values=values_text(spec), scale=scale_text(spec), condition=condition_text(spec)
        )
        for name, spec in file.space.items()
    ]
    fixed = {name: setting_text(each) for name, each in file.fixed.items()}
    return Searched(facts={**_search_facts(file, study), **told}, space=space, fixed=fixed, machines=where)


def _search_facts(file: SearchFile, study: SearchStudy) -> dict[str, str]:
    settings = file.study
    sizes = part_sizes(TRAINING_IMAGES[file.data.dataset], file.data.val_share)
    limits = [f"at most {most:,} {SIZE_UNITS[key]}" for key, most in file.constraints.limits.items()]
    facts = {
        "data set": title_of(file.data.dataset),
        "images": f"{sizes.train:,} to train on, {sizes.val:,} to validate with; split by seed {file.data.split_seed}",
        "data digest": study.optuna.user_attrs.get(DATA_KEY, "not recorded"),
        "epochs": f"{file.train.epochs} a trial"
        if settings.pruner.name == "none"
        else f"at most {file.train.epochs} a trial",
        "metric": f"{settings.metric}, {'lower' if settings.direction == 'minimize' else 'higher'} is better",
        "sampler": f"{settings.sampler.name}: {sampler_text(settings)}",
        "pruner": f"{settings.pruner.name}: {pruner_text(settings.pruner, file.train.epochs)}",
        "first trials": f"{count(len(file.enqueue), 'configuration')} of the study file" if file.enqueue else "",
        "constraints": ", ".join(limits),
        "precision": "" if file.train.precision == "auto" else file.train.precision,
        "normalisation": "" if file.data.normalisation == "standard" else file.data.normalisation,
    }
    return {what: text for what, text in facts.items() if text}


def _plan_facts(file: StudyFile) -> dict[str, str]:
    assert isinstance(file, PlanFile)
    return {"trainings": "planned, each with its own configuration and images", "planned by": file.planned_by}
