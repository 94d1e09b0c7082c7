"""Checks of everything that a retraining needs, before any training starts."""

from dataclasses import dataclass
from pathlib import Path

from kmnist_search.data import files
from kmnist_search.errors import StudyExistsError, StudyInUseError
from kmnist_search.evaluation.testing import check_test_files
from kmnist_search.retrain.plan import RetrainingPlan, RetrainOptions, plan_of
from kmnist_search.run.options import RunOptions
from kmnist_search.study.opening import companion_name, find_companion, study_names
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.schema import RetrainTable, SearchFile


@dataclass(frozen=True, eq=False, kw_only=True)
class Preparation:
    """A retraining whose needs were checked, before any training.

    Attributes:
        options: as they were typed; `settings` are those of the study file with these options.
    """

    study: SearchStudy
    options: RetrainOptions
    settings: RetrainTable
    plan: RetrainingPlan
    data_dir: Path


def prepare(study: SearchStudy, options: RetrainOptions, run_options: RunOptions) -> Preparation:
    """Check what a retraining needs; train nothing and leave the test set closed.

    Raises:
        InputError: the study, an option or the test images cannot be used.
    """
    file = study.file
    if not isinstance(file, SearchFile):
        raise StudyInUseError(f"study {study.name!r} consists of planned trainings. {file.next_step('')}")
    study.recover()
    if running := study.counts().running:
        raise StudyInUseError(
            f"{running} of the trials of study {study.name!r} are running, and one of them may become the best. "
            "Wait for the search, or stop it."
        )
    name = companion_name(study.name)
    if name in study_names(study.storage) and find_companion(study) is None:
        raise StudyExistsError(
            f"study {name!r} is not the retraining of {study.name!r}, which needs that name. Give it another: "
            f"kmnist-search studies rename {name} NAME"
        )
    settings = options.over(file.retrain)
    plan = plan_of(study, settings)
    data_dir = run_options.data_dir or study.data_dir() or files.default_data_dir()
    check_test_files([plan.data.dataset], data_dir)
    return Preparation(study=study, options=options, settings=settings, plan=plan, data_dir=data_dir)
