"""One retraining of a study's best trials, put together from its parts. Knows nothing of terminals."""

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
from kmnist_search.host.signals import StopSignals
from kmnist_search.retrain.candidates import Plan, plan_of
from kmnist_search.retrain.retraining import Retraining
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.schema import SearchFile


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user may decide; `epochs` None is the study's own."""

    top_k: int = 5
    seeds: int = 3
    final_seeds: int = 5
    epochs: int | None = None

    def command(self, name: str) -> str:
        """Return the command that does the same with the study called `name`."""
        epochs = "" if self.epochs is None else f" --epochs {self.epochs}"
        return (
            f"kmnist-search best {name} --retrain --top-k {self.top_k} --seeds {self.seeds} "
            f"--final-seeds {self.final_seeds}{epochs}"
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Preparation:
    """A retraining whose needs have been checked, before anything is trained."""

    study: SearchStudy
    choices: Choices
    plan: Plan
    data: DataConfig
    data_dir: Path
    images: TrainingSet
    device: torch.device
    backend: Backend

    def retraining(self, signals: StopSignals) -> Retraining:
        """Return the retraining, ready to work."""
        return Retraining(
            self.study,
            self.plan,
            self.images,
            data=self.data,
            data_dir=self.data_dir,
            device=self.device,
            backend=self.backend,
            signals=signals,
        )


def _check_at_rest(study: SearchStudy) -> None:
    """Raise StudyInUseError while trials run: the test set is opened for the best, which may still be to come."""
    study.recover()
    if running := study.counts().running:
        raise StudyInUseError(
            f"{running} of the trials of study {study.name!r} run now, so its best may still be to come. "
            "Wait for the search, or stop it."
        )


def prepare(
    study: SearchStudy, choices: Choices, *, data_dir: Path | None, device: str, compiled: bool = False
) -> Preparation:
    """Check everything a retraining needs; train nothing, and open no test set.

    Args:
        study: whose best trials are retrained.
        choices: how many, how often, how long.
        data_dir: folder of the images; None is the one the study was last searched with, or else the user's cache.
        device: "auto", "cpu", "cuda" or "cuda:N".
        compiled: whether the trainings go through `torch.compile`.

    Raises:
        InputError: something of that cannot be.
    """
    if not isinstance(study.file, SearchFile):
        raise StudyInUseError(
            f"study {study.name!r} compares systems that are not searched. Test them with: kmnist-search references"
        )
    _check_at_rest(study)
    plan = plan_of(
        study,
        top_k=choices.top_k,
        num_reruns=choices.seeds,
        num_finals=choices.final_seeds,
        epochs=choices.epochs,
    )
    chosen = device_named(device)
    if compiled:
        check_compiles(chosen)
    data = DataConfig(**study.settings["data"])
    folder = data_dir or study.data_dir() or files.default_data_dir()
    images = load_training_set(data.dataset, folder)
    study.remember_data({data: images.split(data).digest}, folder)
    if data.dataset in IDX_DATASETS:
        files.test_files(IDX_DATASETS[data.dataset], folder)  # they must be there, but stay closed
    check_writable(study.checkpoint_dir)
    return Preparation(
        study=study,
        choices=choices,
        plan=plan,
        data=data,
        data_dir=folder,
        images=images,
        device=chosen,
        backend="compiled" if compiled else "auto",
    )
