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
from kmnist_search.retrain.candidates import RetrainingPlan, plan_of
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.schema import SearchFile


@dataclass(frozen=True, kw_only=True)
class RetrainOptions:
    """The user's options.

    Attributes:
        top_k: number of candidates; 1 takes the best trial without reruns.
        seeds: reruns per candidate.
        final_seeds: number of final models.
        epochs: epochs of each training; None for the study's own.
        data_dir: folder of the images; None for the one the study was last searched with, or else the user's cache.
        device: "auto", "cpu", "cuda" or "cuda:N".
        compiled: whether trainings use `torch.compile`.
    """

    top_k: int = 5
    seeds: int = 3
    final_seeds: int = 5
    epochs: int | None = None
    data_dir: Path | None = None
    device: str = "auto"
    compiled: bool = False

    def command(self, name: str) -> str:
        """Return the command that does the same for the study called `name`."""
        epochs = "" if self.epochs is None else f" --epochs {self.epochs}"
        return (
            f"kmnist-search best {name} --retrain --top-k {self.top_k} --seeds {self.seeds} "
            f"--final-seeds {self.final_seeds}{epochs}"
        )


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


def _check_at_rest(study: SearchStudy) -> None:
    """Raise StudyInUseError while trials run: the best trial may still be running."""
    study.recover()
    if running := study.counts().running:
        raise StudyInUseError(
            f"{running} of the trials of study {study.name!r} run now, so its best may still be to come. "
            "Wait for the search, or stop it."
        )


def prepare(study: SearchStudy, options: RetrainOptions) -> Preparation:
    """Check everything a retraining needs; train nothing and leave the test set closed.

    Raises:
        InputError: the study, an option, the images or a folder cannot be used.
    """
    if not isinstance(study.file, SearchFile):
        raise StudyInUseError(
            f"study {study.name!r} compares systems that are not searched. Test them with: kmnist-search references"
        )
    _check_at_rest(study)
    plan = plan_of(
        study,
        top_k=options.top_k,
        num_reruns=options.seeds,
        num_finals=options.final_seeds,
        epochs=options.epochs,
    )
    chosen = device_named(options.device)
    if options.compiled:
        check_compiles(chosen)
    data = DataConfig(**study.settings["data"])
    folder = options.data_dir or study.data_dir() or files.default_data_dir()
    images = load_training_set(data.dataset, folder)
    study.remember_data({data: images.split(data).digest}, folder)
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
