"""One study: its settings, and its trials as read from the database."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import select
from sqlalchemy.engine import Connection

from kmnist_search.config import DataConfig
from kmnist_search.config.seeds import derived_seed
from kmnist_search.database.storage import Storage
from kmnist_search.database.tables import study_user_attributes
from kmnist_search.database.trial_reader import read_attribute, read_attributes, read_reports, read_trials
from kmnist_search.errors import NoCompleteTrialError, StudyChangedError, StudyNotFoundError
from kmnist_search.optuna_internals import study_id_of, trial_id_of
from kmnist_search.queue import leases
from kmnist_search.queue.halt import Halt, read_halt, write_halt
from kmnist_search.queue.queue import Added, Counts, Entry, Queue
from kmnist_search.queue.workers import RegisteredWorker, registered_workers, remove_gone_workers
from kmnist_search.study.ranking import DIGEST_KEY, SIZE_KEY
from kmnist_search.study_file.parser import loads
from kmnist_search.study_file.schema import PlannedTraining, StudyFile, TrainingSpec
from kmnist_search.study_file.writer import as_toml

FILE_KEY = "study_file"
DATA_KEY = "data_digest"
DATA_DIR_KEY = "data_dir"
LAST_WORKED_KEY = "last_worked_at"
TRACEBACK_KEY = "traceback"
CHECKPOINTS_KEY = "checkpoints"
VERSION_KEY = "package_version"
PLANNED_EPOCHS_KEY = "planned_epochs"

optuna.logging.set_verbosity(optuna.logging.WARNING)


class SearchStudy:
    """An Optuna study with the settings it was created with, and the queue of its trials."""

    def __init__(self, storage: Storage, study: optuna.Study) -> None:
        self.storage = storage
        self.optuna = study
        self.name = study.study_name
        self.direction = study.direction
        self.queue = Queue(study_id_of(study))
        attributes = study.user_attrs
        self.settings: Mapping[str, Any] = attributes[FILE_KEY]
        #: Those of each planned training, also of those that are queued later; None if they are not recorded.
        self.planned_epochs: Sequence[int] | None = attributes.get(PLANNED_EPOCHS_KEY)
        self.checkpoint_dir: Path = storage.checkpoint_dir / attributes[CHECKPOINTS_KEY]

    @property
    def file(self) -> StudyFile:
        """The study file, which is stored in the study."""
        return loads(as_toml(self.settings), source=f"study {self.name!r}", name=self.name)

    @property
    def metric(self) -> str:
        return str(self.settings["study"]["metric"])

    @property
    def is_plan(self) -> bool:
        """Whether its trials are planned trainings, see `PlanFile`."""
        return "plan" in self.settings["study"]

    @property
    def pauses(self) -> bool:
        """Whether its trials may pause, see `study/halving.py`."""
        return self.file.study.pruner.name == "asha"

    @property
    def epochs(self) -> int:
        return int(self.settings["train"]["epochs"])

    def epochs_of(self, params: Mapping[str, Any]) -> int:
        """Return the number of training epochs of a trial with these hyperparameters."""
        return int(params.get("epochs", self.epochs))

    def total(self, counts: Counts) -> int:
        """Return how many trials the study has, with planned trainings that are queued later."""
        return max(counts.total, len(self.planned_epochs or ()))

    def record_planned_epochs(self, epochs: Sequence[int]) -> None:
        """Record the epochs of each planned training, also of those that are queued later."""
        self.planned_epochs = list(epochs)
        self.optuna.set_user_attr(PLANNED_EPOCHS_KEY, self.planned_epochs)

    def record_data(self, digests: Mapping[DataConfig, str], folder: Path) -> None:
        """Record which images and splits the study uses, and their folder.

        Raises:
            StudyChangedError: the study was created with others.
        """
        shared = self.file.shared_data
        for config, digest in digests.items():
            key = DATA_KEY if config == shared else f"{DATA_KEY}:{config.digest}"
            before = self.optuna.user_attrs.get(key)
            if before is None:
                self.optuna.set_user_attr(key, digest)
            elif before != digest:
                raise StudyChangedError(
                    f"study {self.name!r} was started with other images or another split (data digest {before}, now "
                    f"{digest}). Use the same data as before, or start another study with --name."
                )
        self.optuna.set_user_attr(DATA_DIR_KEY, str(folder.absolute()))

    def record_version(self, version: str) -> str | None:
        """Record this package's version; return the one recorded before if it differs."""
        before: str | None = self.optuna.user_attrs.get(VERSION_KEY)
        if before != version:
            self.optuna.set_user_attr(VERSION_KEY, version)
        return before if before != version else None

    def check_version(self, version: str) -> None:
        """Raise StudyChangedError if the study is worked on with another version of this package."""
        before = self.optuna.user_attrs.get(VERSION_KEY, version)
        if before != version:
            raise StudyChangedError(
                f"study {self.name!r} uses kmnist-search {before}, but this worker has {version}, whose trials "
                f"might differ. Install kmnist-search {before} here, or switch the study to {version} with "
                "kmnist-search run or submit."
            )

    def data_dir(self) -> Path | None:
        """Return the folder from which the images were last read, if it exists on this machine."""
        folder = self.optuna.user_attrs.get(DATA_DIR_KEY)
        return Path(folder) if folder is not None and Path(folder).is_dir() else None

    def touch(self) -> None:
        """Record that the study is worked on now."""
        self.optuna.set_user_attr(LAST_WORKED_KEY, datetime.now(UTC).isoformat())

    def training_seed(self, number: int) -> int:
        """Return the training seed of trial `number`, the same for every worker and attempt."""
        return derived_seed(int(self.settings["study"]["seed"]), number, 0)

    def check_is_there(self, connection: Connection) -> None:
        """Raise StudyNotFoundError if the study was deleted, even if a new study has its id."""
        table = study_user_attributes
        its_folder = (table.c.study_id == self.queue.study_id) & (table.c.key == CHECKPOINTS_KEY)
        folder = connection.scalar(select(table.c.value_json).where(its_folder))
        if folder is None or json.loads(folder) != self.checkpoint_dir.name:
            raise StudyNotFoundError(f"study {self.name!r} in {self.storage.shown_url} was deleted in the meantime.")

    def counts(self) -> Counts:
        """Return how many trials are in which state."""
        with self.storage.reading() as connection:
            return self.queue.counts(connection)

    def fill(self, budget: int, first: Sequence[Mapping[str, Any]] = ()) -> int:
        """Add waiting trials, see `Queue.fill`."""
        with self.storage.writing() as connection:
            return self.queue.fill(connection, budget, first)

    def add(self, trainings: Sequence[PlannedTraining]) -> int:
        """Add waiting trials for planned trainings, see `Queue.add`."""
        entries = [Entry(params=each.params, training=each.spec.model_dump(mode="json")) for each in trainings]
        with self.storage.writing() as connection:
            return self.queue.add(connection, entries)

    def added(self) -> list[Added]:
        """Return the trials that were added with what they shall train, by number."""
        with self.storage.reading() as connection:
            return self.queue.added(connection)

    def trainings_left(self) -> list[PlannedTraining]:
        """Return the planned trainings that are not over."""
        return [
            PlannedTraining(params={}, spec=TrainingSpec.model_validate(each.training))
            for each in self.added()
            if not each.state.is_finished()
        ]

    def disown(self, number: int, reason: str) -> None:
        """Let a finished trial count as failed, see `Queue.disown`."""
        with self.storage.writing() as connection:
            self.queue.disown(connection, number, reason)

    def recover(self, max_retries: int | None = None) -> list[int]:
        """Return trials of lost workers to the queue, see `leases.recover`; remove those workers from the roster."""
        if max_retries is None:
            max_retries = int(self.settings["study"]["max_retries"])
        with self.storage.writing() as connection:
            remove_gone_workers(connection, self.queue.study_id)
            return leases.recover(connection, self.queue.study_id, max_retries=max_retries)

    def workers(self) -> list[RegisteredWorker]:
        """Return the workers of the study."""
        with self.storage.reading() as connection:
            return registered_workers(connection, self.queue.study_id)

    def halt(self) -> Halt | None:
        """Return whether its workers shall wait or end; None if they shall work."""
        with self.storage.reading() as connection:
            return read_halt(connection, self.queue.study_id)

    def set_halt(self, halt: Halt | None) -> None:
        """Let its workers wait or end; None lets them work again."""
        with self.storage.writing() as connection:
            write_halt(connection, self.queue.study_id, halt)

    def trials(self) -> list[FrozenTrial]:
        """Return the running and finished trials by number, without reports and user attributes."""
        with self.storage.reading() as connection:
            return read_trials(connection, self.queue.study_id, with_reports=False)

    def with_details(self, trials: Sequence[FrozenTrial]) -> None:
        """Add reports and user attributes to trials that lack them."""
        ids = [trial_id_of(trial) for trial in trials]
        with self.storage.reading() as connection:
            attributes, reports = read_attributes(connection, ids), read_reports(connection, ids)
        for trial in trials:
            trial.user_attrs = attributes[trial_id_of(trial)]
            trial.intermediate_values = reports[trial_id_of(trial)]

    def ranked(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Return the complete trials, best first."""
        complete = (trial for trial in trials if trial.state == TrialState.COMPLETE)
        highest_first = self.direction == StudyDirection.MAXIMIZE
        return sorted(complete, key=lambda trial: trial.values[0], reverse=highest_first)

    def complete(self) -> list[FrozenTrial]:
        """Return the complete trials, best first, without reports; of user attributes, only config digest and size.

        Raises:
            NoCompleteTrialError: there is none.
        """
        keys = (DIGEST_KEY, SIZE_KEY)
        with self.storage.reading() as connection:
            trials = read_trials(connection, self.queue.study_id, with_reports=False)
            known = {key: read_attribute(connection, self.queue.study_id, key) for key in keys}
        ranked = self.ranked(trials)
        for trial in ranked:
            trial_id = trial_id_of(trial)
            trial.user_attrs = {key: known[key][trial_id] for key in keys if trial_id in known[key]}
        if not ranked:
            counts = self.counts()
            raise NoCompleteTrialError(
                f"study {self.name!r} has no complete trial yet: 0 of {counts.total} ({counts.pruned} pruned, "
                f"{counts.fail} failed). See: kmnist-search status {self.name}"
            )
        return ranked

    def is_better(self, value: float, other: float) -> bool:
        """Return whether a metric of `value` is better than one of `other`."""
        return value != other and self.is_as_good(value, other)

    def is_as_good(self, value: float, target: float) -> bool:
        """Return whether a metric of `value` is at least as good as `target`."""
        return value >= target if self.direction == StudyDirection.MAXIMIZE else value <= target
