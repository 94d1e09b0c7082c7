"""One run of a search in this process, put together from its parts. Knows nothing of terminals."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch

from kmnist_search.checkpoints import check_writable
from kmnist_search.courier import Courier
from kmnist_search.data import search_data
from kmnist_search.data.search_data import SearchData
from kmnist_search.database_errors import when_it_answers
from kmnist_search.engine.device import device_named
from kmnist_search.engine.estimate import seconds_per_epoch
from kmnist_search.engine.packing import Packing
from kmnist_search.errors import ConfigError
from kmnist_search.events import Event
from kmnist_search.progress import Progress, progress_seen_by
from kmnist_search.queue import Counts
from kmnist_search.signals import StopSignals
from kmnist_search.stop import Limits
from kmnist_search.storage import Storage, open_storage
from kmnist_search.storage_url import check_url
from kmnist_search.study import SearchStudy, open_study
from kmnist_search.study_file import StudyFile
from kmnist_search.study_parser import load
from kmnist_search.worker import Worker


@dataclass(frozen=True, eq=False, kw_only=True)
class Search:
    """A study that is open, filled up to its budget, and has its images: ready to be worked on.

    Attributes:
        budget: trials the study shall end with.
        target: the metric to stop at, if any.
        recovered: numbers of trials that an owner who is gone had left.
        database_timeout: seconds that the database may be away.
        per_gpu: trials to train at a time; None is one on a CPU, and on a GPU as many as pay.
    """

    study: SearchStudy
    file: StudyFile
    data: SearchData
    device: torch.device
    budget: int
    target: float | None
    recovered: Sequence[int]
    database_timeout: float
    per_gpu: int | None = None

    @property
    def needs_warning(self) -> bool:
        """True when the study is meant for a GPU and there is none."""
        return self.file.study.meant_for == "gpu" and self.device.type == "cpu"

    def counts(self) -> Counts:
        """Return how many trials are in which state."""
        return when_it_answers()(self.study.counts)

    def trials_left(self) -> int:
        """Return how many trials are to be done here, if those that others run get to their end."""
        counts = self.counts()
        return max(self.budget - counts.finished - counts.running, 0)

    def estimate(self) -> timedelta:
        """Return about how long the trials left would take here if none were pruned; measures for two seconds."""
        epochs = self.file.train.epochs * (self.budget - self.counts().finished)
        return timedelta(seconds=epochs * seconds_per_epoch(self.file.middle(), self.data))

    def work(
        self, signals: StopSignals, *, seconds: float | None, cores: int | None = None
    ) -> tuple[Worker, Generator[Event, None, None]]:
        """Return a worker, for so many cores, and the events of its work, which goes on while they are drawn."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # else what names no device would set up the first GPU, too
        limits = Limits(budget=self.budget, seconds=seconds, target=self.target)
        courier = Courier(
            self.study.storage,
            self.study.queue,
            self.study.mirror(),
            lease_seconds=self.file.study.lease_seconds,
            max_retries=self.file.study.max_retries,
            database_timeout=self.database_timeout,
            counts=self.counts(),
        )
        worker = Worker(
            self.study,
            self.file,
            self.data,
            courier,
            device=self.device,
            limits=limits,
            signals=signals,
            packing=self._packing(),
            cores=cores,
        )
        return worker, worker.work()

    def seen_by(self, worker: Worker) -> Progress:
        """Return how far the study has come as a worker knows it; asks no database."""
        return progress_seen_by(self.study, worker.courier.mirror, worker.courier.counts)

    def _packing(self) -> Packing:
        if self.per_gpu is not None:
            return Packing.fixed(self.per_gpu)
        return Packing.measured() if self.device.type == "cuda" else Packing.fixed(1)


def prepare(
    path: Path,
    *,
    overrides: Sequence[str],
    trials: int | None,
    target: float | None,
    storage_url: str,
    data_dir: Path,
    device: str,
    checkpoint_dir: Path | None = None,
    database_timeout: float = 600.0,
    per_gpu: int | None = None,
) -> Search:
    """Check everything a search needs, cheap things first, then make or open the study and fill its queue.

    Args:
        path: the study file.
        overrides: `table.key=value` each.
        trials: the budget; None is the study file's own.
        target: a metric to stop at; None is no such.
        storage_url: the database.
        data_dir: folder of the images.
        device: "auto", "cpu", "cuda" or "cuda:N".
        checkpoint_dir: folder of the checkpoints; None is the storage's own.
        database_timeout: seconds that the database may be away while trials run.
        per_gpu: trials to train at a time on a GPU; None is as many as pay.

    Raises:
        InputError: something of that cannot be; no trial was added.
    """
    file = load(path, overrides=overrides)
    _check_target(target, file)
    if checkpoint_dir is not None:
        check_writable(checkpoint_dir)
    check_url(storage_url)
    chosen = device_named(device)
    _check_per_gpu(per_gpu, chosen)
    data = search_data.load(file.data, data_dir)
    _check_batch_sizes(file, data)
    storage = open_storage(storage_url, create=True, checkpoint_dir=checkpoint_dir)
    budget = trials if trials is not None else file.study.trials
    # Where many workers begin at the same moment, a server may have no connection left for a while.
    study, recovered = when_it_answers()(_made_ready, storage, file, data.digest, data_dir, budget)
    return Search(
        study=study,
        file=file,
        data=data,
        device=chosen,
        budget=budget,
        target=target,
        recovered=recovered,
        database_timeout=database_timeout,
        per_gpu=per_gpu,
    )


def _made_ready(
    storage: Storage, file: StudyFile, data_digest: str, data_dir: Path, budget: int
) -> tuple[SearchStudy, list[int]]:
    """Open the study, recover what was lost and fill its queue; done again it changes nothing."""
    study = open_study(storage, file)
    study.remember_data(data_digest, data_dir)
    study.touch()
    recovered = study.recover(file.study.max_retries)
    study.fill(budget, file.enqueue)
    storage.let_go()
    return study, recovered


def _check_target(target: float | None, file: StudyFile) -> None:
    if target is None:
        return
    if target <= 0 or (file.study.metric == "val_accuracy" and target > 1):
        raise ConfigError(f"--target {target:g}: {file.study.metric} never gets there. 98 % is written 0.98")


def _check_per_gpu(per_gpu: int | None, device: torch.device) -> None:
    if per_gpu is not None and per_gpu > 1 and device.type == "cpu":
        raise ConfigError(
            f"--per-gpu {per_gpu}: the device is the CPU, which trains one trial at a time. "
            "Leave it out; --workers says how many processes share its cores."
        )


def _check_batch_sizes(file: StudyFile, data: SearchData) -> None:
    images = len(data.train_images)
    sizes = file.space["batch_size"].values() if "batch_size" in file.space else [file.middle().batch.batch_size]
    if max(sizes) > images:
        raise ConfigError(f"batch_size {max(sizes)} is more than the {images:,} training images of {file.data.dataset}")
