"""Checks of everything that a retraining needs, before any training starts."""

from dataclasses import dataclass
from pathlib import Path

import torch

from kmnist_search.config import DataConfig
from kmnist_search.data import files
from kmnist_search.data.catalog import IDX_DATASETS
from kmnist_search.data.search_data import TrainingSet, load_training_set
from kmnist_search.engine.backends import Backend, check_compiles
from kmnist_search.engine.device import device_named
from kmnist_search.errors import StudyInUseError
from kmnist_search.host.files import check_writable
from kmnist_search.retrain.plan import RetrainingPlan, RetrainOptions, plan_of
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.schema import SearchFile


@dataclass(frozen=True, eq=False, kw_only=True)
class Preparation:
    """A retraining whose needs were checked, before any training."""

    study: SearchStudy
    options: RetrainOptions
    plan: RetrainingPlan
    data: DataConfig
    data_dir: Path
    images: TrainingSet
    device: torch.device
    backend: Backend


def prepare(study: SearchStudy, options: RetrainOptions) -> Preparation:
    """Check everything a retraining needs; train nothing and leave the test set closed.

    Raises:
        InputError: the study, an option, the images or a folder cannot be used.
    """
    if not isinstance(study.file, SearchFile):
        raise StudyInUseError(
            f"study {study.name!r} compares systems that are not searched. Test them with: kmnist-search references"
        )
    study.recover()
    if running := study.counts().running:
        raise StudyInUseError(
            f"{running} of the trials of study {study.name!r} are running, and one of them may become the best. "
            "Wait for the search, or stop it."
        )
    plan = plan_of(study, options)
    chosen = device_named(options.device)
    if options.compiled:
        check_compiles(chosen)
    data = DataConfig(**study.settings["data"])
    folder = options.data_dir or study.data_dir() or files.default_data_dir()
    images = load_training_set(data.dataset, folder)
    study.record_data({data: images.split(data).digest}, folder)
    if data.dataset in IDX_DATASETS:
        files.test_files(IDX_DATASETS[data.dataset], folder)  # they must exist, but stay closed
    check_writable(study.checkpoint_dir)
    return Preparation(
        study=study,
        options=options,
        plan=plan,
        data=data,
        data_dir=folder,
        images=images,
        device=chosen,
        backend="compiled" if options.compiled else "auto",
    )
