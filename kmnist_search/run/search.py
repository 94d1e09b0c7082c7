"""A search: an open study with its images, and the worker that trains its trials."""

import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta

import torch

from kmnist_search.dashboard_content.artifacts import TrialArtifacts
from kmnist_search.dashboard_content.publisher import Publisher
from kmnist_search.dashboard_content.snapshot import Images
from kmnist_search.data.search_data import StudyData
from kmnist_search.database.errors import when_it_answers
from kmnist_search.engine.concurrency import Concurrency
from kmnist_search.engine.device import device_named, device_place
from kmnist_search.engine.estimate import seconds_per_epoch
from kmnist_search.engine.memory_budget import MemoryBudget
from kmnist_search.host.environment import scheduler_job, versions
from kmnist_search.host.signals import StopSignals
from kmnist_search.optuna_internals import ArtifactStore
from kmnist_search.queue.queue import Counts
from kmnist_search.queue.workers import WorkerInfo
from kmnist_search.run.options import RunOptions
from kmnist_search.run.placement import Place, places
from kmnist_search.study.artifacts import open_artifact_store
from kmnist_search.study.proposals import Proposals
from kmnist_search.study.status import Progress, progress_of_worker
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.schema import StudyFile
from kmnist_search.worker.context import TrialContext
from kmnist_search.worker.database_thread import DatabaseThread
from kmnist_search.worker.events import Event, RunWarning, TrialValidated
from kmnist_search.worker.stop import Stop
from kmnist_search.worker.trial_models import TrialModels
from kmnist_search.worker.worker import Worker


@dataclass(frozen=True, eq=False, kw_only=True)
class Search:
    """An open study with its images, ready for a worker.

    Attributes:
        options: of the run; `limits.budget` is the study's if this run filled its queue.
        recovered: numbers of the trials recovered from dead owners.
        add_what_follows, is_wanted_elsewhere: see `Worker`.
        version_before: the package version that the study used last, if it was another one.
    """

    study: SearchStudy
    file: StudyFile
    data: StudyData
    options: RunOptions
    recovered: Sequence[int]
    version_before: str | None = None
    add_what_follows: Callable[[], Sequence[str]] = tuple
    is_wanted_elsewhere: Callable[[], bool] = bool

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return device_named(self.options.device)

    @property
    def store(self) -> ArtifactStore:
        """The artifact store of this run."""
        return open_artifact_store(self.options.artifacts, self.study.storage.url)

    def counts(self) -> Counts:
        """Return the number of trials in each state."""
        return when_it_answers()(self.study.counts)

    def goal(self, counts: Counts) -> int:
        """Return how many trials the study will have finished in the end."""
        budget = self.options.limits.budget
        return self.study.total(counts) if budget is None else budget

    def trials_left(self) -> int:
        """Return how many trials this run can still claim, without those that run now."""
        counts = self.counts()
        return max(self.goal(counts) - counts.finished - counts.running, 0)

    def places(self, devices: Sequence[str]) -> list[Place]:
        """Return the places of the worker processes of this run."""
        return places(
            devices,
            self.file.middle(),
            images=self.data.train_images,
            workers=self.options.workers,
            trials_left=sys.maxsize if self.options.limits.waits == "forever" else self.trials_left(),
        )

    def estimate(self) -> timedelta:
        """Return how long the remaining trials take here if none is pruned, measured for two seconds."""
        counts = self.counts()
        config, data = self.file.middle(), self.data.of(self.file.datas()[0])
        epochs = config.train.epochs * (self.goal(counts) - counts.finished)
        return timedelta(seconds=epochs * seconds_per_epoch(config, data))

    def worker_info(self) -> WorkerInfo:
        """Return device, versions and job of a worker in this process."""
        return WorkerInfo(device=device_place(self.device), versions=versions(), job=scheduler_job())

    def for_at_most(self, seconds: float | None) -> "Search":
        """Return the same search with a deadline in `seconds`; None means no deadline."""
        deadline = None if seconds is None else time.monotonic() + seconds
        limits = replace(self.options.limits, deadline=deadline)
        return replace(self, options=replace(self.options, limits=limits))

    def work(self, signals: StopSignals, *, cores: int | None = None) -> tuple[Worker, Generator[Event, None, None]]:
        """Return a worker and the events of its work; the work advances as they are consumed.

        Args:
            signals: ask for a stop.
            cores: that the worker may use; None means all.
        """
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # else code that names no device initializes the first GPU, too
        proposals = Proposals(self.study, self.file)
        database_thread = DatabaseThread(
            self.study,
            proposals.cached_storage,
            lease_seconds=self.file.study.lease_seconds,
            max_retries=self.file.study.max_retries,
            database_timeout=self.options.database_timeout,
            counts=self.counts(),
            info=self.worker_info(),
            halving=proposals.halving,
        )
        context = TrialContext(
            study=self.study,
            data=self.data.to(self.device),
            proposals=proposals,
            database_thread=database_thread,
            models=TrialModels(self.store),
            device=self.device,
            cores=cores,
            memory_budget=MemoryBudget(self.device),
            stop=Stop(signals, deadline=self.options.limits.deadline),
        )
        hooks, limits = (self.add_what_follows, self.is_wanted_elsewhere), self.options.limits
        if proposals.halving is not None and limits.waits == "never":  # what others train may let paused trials resume
            limits = replace(limits, waits="for others")
        worker = Worker(context, limits, self._concurrency(), *hooks)
        return worker, _published(worker.work(), self._publisher(database_thread))

    def seen_by(self, worker: Worker) -> Progress:
        """Return the study's progress as a worker knows it, without asking the database."""
        return progress_of_worker(self.study, worker.database_thread.cached_storage, worker.database_thread.counts)

    def _publisher(self, database_thread: DatabaseThread) -> Publisher:
        images = None
        if self.file.shared_data is not None:
            data = self.data.of(self.file.shared_data)
            images = Images(train=len(data.train_images), val=len(data.val_images), digest=data.digest)
        return Publisher(
            self.study,
            self.file,
            database_thread.cached_storage,
            TrialArtifacts(self.study, self.file, self.store, self.data),
            worker=database_thread.registration.worker_id,
            budget=self.options.limits.budget,
            images=images,
        )

    def _concurrency(self) -> Concurrency:
        if self.options.per_gpu is not None:
            return Concurrency.fixed(self.options.per_gpu)
        return Concurrency.adaptive() if self.device.type == "cuda" else Concurrency.fixed(1)


def _published(events: Generator[Event, None, None], publisher: Publisher) -> Generator[Event, None, None]:
    """Pass its events to the publisher and yield the others; yield a warning when publishing fails."""
    with closing(events), publisher:
        for event in events:
            if isinstance(event, TrialValidated):
                publisher.take(event)
            else:
                yield event
            yield from _publishing_error(publisher)
    yield from _publishing_error(publisher)


def _publishing_error(publisher: Publisher) -> Iterator[RunWarning]:
    if reason := publisher.new_error():
        yield RunWarning(text=f"the dashboard will lack some of what it shows, the search continues: {reason}")
