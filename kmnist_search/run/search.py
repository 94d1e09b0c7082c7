"""One run of a search in this process, put together from its parts. Knows nothing of terminals."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch

from kmnist_search.dashboard_content.artifacts import TrialArtifacts
from kmnist_search.dashboard_content.publisher import Publisher
from kmnist_search.dashboard_content.snapshot import Images
from kmnist_search.data.search_data import StudyData
from kmnist_search.database.errors import when_it_answers
from kmnist_search.engine.device import device_named, device_place
from kmnist_search.engine.estimate import seconds_per_epoch
from kmnist_search.engine.packing import Packing
from kmnist_search.errors import ConfigError
from kmnist_search.host.environment import scheduler_job, versions
from kmnist_search.host.files import check_writable
from kmnist_search.host.signals import StopSignals
from kmnist_search.queue.queue import Counts
from kmnist_search.queue.workers import Facts
from kmnist_search.run.submission import submit
from kmnist_search.study.artifacts import ArtifactStore, folder_of, open_artifact_store, open_bucket
from kmnist_search.study.status import Progress, progress_seen_by
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.parser import load
from kmnist_search.study_file.schema import StudyFile
from kmnist_search.worker.database_thread import DatabaseThread
from kmnist_search.worker.events import Event, NotShown, TrialValidated
from kmnist_search.worker.stop import Limits
from kmnist_search.worker.worker import Worker


@dataclass(frozen=True, eq=False, kw_only=True)
class Search:
    """A study that is open, and has its images: ready to be worked on.

    Attributes:
        limits: when its workers stop.
        recovered: numbers of trials that an owner who is gone had left.
        database_timeout: seconds that the database may be away.
        per_gpu: trials to train at a time; None is one on a CPU, and on a GPU as many as pay.
        version_before: of this package, if the study was worked on with another so far.
    """

    study: SearchStudy
    file: StudyFile
    data: StudyData
    artifact_store: ArtifactStore
    device: torch.device
    limits: Limits
    recovered: Sequence[int]
    database_timeout: float
    per_gpu: int | None = None
    version_before: str | None = None

    @property
    def needs_warning(self) -> bool:
        """True when the study is meant for a GPU and there is none."""
        return self.file.study.meant_for == "gpu" and self.device.type == "cpu"

    def counts(self) -> Counts:
        """Return how many trials are in which state."""
        return when_it_answers()(self.study.counts)

    def goal(self, counts: Counts) -> int:
        """Return how many trials of the study shall be finished in the end."""
        return counts.total if self.limits.budget is None else self.limits.budget

    def trials_left(self) -> int:
        """Return how many trials are to be done here, if those that others run get to their end."""
        counts = self.counts()
        return max(self.goal(counts) - counts.finished - counts.running, 0)

    def estimate(self) -> timedelta:
        """Return about how long the trials left would take here if none were pruned; measures for two seconds."""
        counts = self.counts()
        config, data = self.file.middle(), self.data.of(self.file.datas[0])
        epochs = config.train.epochs * (self.goal(counts) - counts.finished)
        return timedelta(seconds=epochs * seconds_per_epoch(config, data))

    def facts(self) -> Facts:
        """Return what a worker in this process works on and with."""
        return Facts(device=device_place(self.device), versions=versions(), job=scheduler_job())

    def work(
        self, signals: StopSignals, *, seconds: float | None, cores: int | None = None
    ) -> tuple[Worker, Generator[Event, None, None]]:
        """Return a worker, for so many cores, and the events of its work, which goes on while they are drawn."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # else what names no device would set up the first GPU, too
        database_thread = DatabaseThread(
            self.study.storage,
            self.study.queue,
            self.study.cached_storage(),
            lease_seconds=self.file.study.lease_seconds,
            max_retries=self.file.study.max_retries,
            database_timeout=self.database_timeout,
            counts=self.counts(),
            facts=self.facts(),
        )
        publisher = self._showcase(database_thread)
        worker = Worker(
            self.study,
            self.file,
            self.data,
            database_thread,
            device=self.device,
            limits=replace(self.limits, seconds=seconds),
            signals=signals,
            packing=self._packing(),
            cores=cores,
        )
        return worker, _shown(worker.work(), publisher)

    def seen_by(self, worker: Worker) -> Progress:
        """Return how far the study has come as a worker knows it; asks no database."""
        return progress_seen_by(self.study, worker.database_thread.cached_storage, worker.database_thread.counts)

    def _showcase(self, database_thread: DatabaseThread) -> Publisher:
        """Return what keeps the dashboard's view of the study up to date; on a GPU, too, it works on the CPU."""
        images = None
        if not self.file.systems:
            data = self.data.of(self.file.data)
            images = Images(train=len(data.train_images), val=len(data.val_images), digest=data.digest)
        return Publisher(
            self.study,
            self.file,
            database_thread.cached_storage,
            TrialArtifacts(self.study, self.file, self.artifact_store, self.data),
            worker=database_thread.registration.worker_id,
            budget=self.limits.budget,
            images=images,
        )

    def _packing(self) -> Packing:
        if self.per_gpu is not None:
            return Packing.fixed(self.per_gpu)
        return Packing.measured() if self.device.type == "cuda" else Packing.fixed(1)


def _shown(events: Generator[Event, None, None], publisher: Publisher) -> Generator[Event, None, None]:
    """Hand the publisher what is for it, and tell all else, and if it is in trouble that as well."""
    with closing(events), publisher:
        for event in events:
            if isinstance(event, TrialValidated):
                publisher.take(event)
            else:
                yield event
            if reason := publisher.new_trouble():
                yield NotShown(reason=reason)
    if reason := publisher.new_trouble():
        yield NotShown(reason=reason)


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
    artifacts: str | None = None,
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
        artifacts: folder or bucket of the artifacts; None is the folder beside the database.
        database_timeout: seconds that the database may be away while trials run.
        per_gpu: trials to train at a time on a GPU; None is as many as pay.

    Raises:
        InputError: something of that cannot be; no trial was added.
    """
    return prepare_file(
        load(path, overrides=overrides),
        trials=trials,
        target=target,
        storage_url=storage_url,
        data_dir=data_dir,
        device=device,
        checkpoint_dir=checkpoint_dir,
        artifacts=artifacts,
        database_timeout=database_timeout,
        per_gpu=per_gpu,
    )


def prepare_file(
    file: StudyFile,
    *,
    trials: int | None,
    target: float | None,
    storage_url: str,
    data_dir: Path,
    device: str,
    checkpoint_dir: Path | None,
    artifacts: str | None,
    database_timeout: float,
    per_gpu: int | None,
) -> Search:
    """Do what `prepare` does for a study file that was read."""
    _check_target(target, file)
    chosen = device_named(device)
    check_per_gpu(per_gpu, chosen)
    check_artifacts(artifacts)
    submitted = submit(file, trials=trials, storage_url=storage_url, data_dir=data_dir, checkpoint_dir=checkpoint_dir)
    return Search(
        study=submitted.study,
        file=file,
        data=submitted.data,
        artifact_store=open_artifact_store(artifacts, submitted.study.storage.url),
        device=chosen,
        limits=Limits(budget=submitted.budget, target=target),
        recovered=submitted.recovered,
        version_before=submitted.version_before,
        database_timeout=database_timeout,
        per_gpu=per_gpu,
    )


def _check_target(target: float | None, file: StudyFile) -> None:
    if target is None:
        return
    if target <= 0 or (file.study.metric == "val_accuracy" and target > 1):
        raise ConfigError(f"--target {target:g}: {file.study.metric} never gets there. 98 % is written 0.98")


def check_artifacts(artifacts: str | None) -> None:
    """Raise ConfigError if artifacts cannot be put where they shall be."""
    if artifacts is None:
        return
    folder = folder_of(artifacts)
    if folder is None:
        open_bucket(artifacts)
    else:
        check_writable(folder, option="--artifacts")


def check_per_gpu(per_gpu: int | None, device: torch.device) -> None:
    """Raise ConfigError if a device does not train so many trials at a time."""
    if per_gpu is not None and per_gpu > 1 and device.type == "cpu":
        raise ConfigError(
            f"--per-gpu {per_gpu}: the device is the CPU, which trains one trial at a time. "
            "Leave it out; --workers says how many processes share its cores."
        )
