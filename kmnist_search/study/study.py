"""One study: made or found in a storage, its rules remembered, its trials read and ranked. Knows nothing of torch."""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import select
from sqlalchemy.engine import Connection

from kmnist_search.config import DataConfig
from kmnist_search.config.seeds import derived_seed
from kmnist_search.database.storage import Storage
from kmnist_search.database.tables import put, studies, study_user_attributes
from kmnist_search.database.trial_reader import read_attributes, read_reports, read_trials
from kmnist_search.errors import NoCompleteTrialError, StudyChangedError, StudyNotFoundError
from kmnist_search.optuna_internals import KnownRows, study_id_of, trial_id_of
from kmnist_search.queue.queue import Claim, Counts, Queue
from kmnist_search.queue.workers import RegisteredWorker, registered_workers, remove_gone_workers
from kmnist_search.study.cached_storage import CachedStorage
from kmnist_search.study.samplers import experimental, pruner_of, sampler_of
from kmnist_search.study_file.parser import loads
from kmnist_search.study_file.schema import StudyFile
from kmnist_search.study_file.writer import as_toml

FILE_KEY = "study_file"
DATA_KEY = "data_digest"
DATA_DIR_KEY = "data_dir"
LAST_WORKED_KEY = "last_worked_at"
TRACEBACK_KEY = "traceback"
CHECKPOINTS_KEY = "checkpoints"
VERSION_KEY = "package_version"

#: What may differ from one run of a study to the next.
FREE_KEYS = (
    "study.name",
    "study.trials",
    "study.meant_for",
    "study.max_retries",
    "study.lease_seconds",
    "enqueue",
)

optuna.logging.set_verbosity(optuna.logging.WARNING)


class SearchStudy:
    """An optuna study with the rules it was begun with, and the queue of its trials."""

    def __init__(self, storage: Storage, study: optuna.Study) -> None:
        self.storage = storage
        self.optuna = study
        self.name = study.study_name
        self.direction = study.direction
        self.queue = Queue(study_id_of(study))
        attributes = study.user_attrs
        self.settings: Mapping[str, Any] = attributes[FILE_KEY]
        self._known_rows: KnownRows = {}
        self.checkpoint_dir: Path = storage.checkpoint_dir / attributes[CHECKPOINTS_KEY]

    @property
    def file(self) -> StudyFile:
        """The study file, which the study carries."""
        return loads(as_toml(self.settings), source=f"study {self.name!r}", name=self.name)

    @property
    def metric(self) -> str:
        return str(self.settings["study"]["metric"])

    @property
    def epochs(self) -> int:
        return int(self.settings["train"]["epochs"])

    def epochs_of(self, params: Mapping[str, Any]) -> int:
        """Return for how many epochs the trial with these hyperparameters is trained."""
        return int(params.get("epochs", self.epochs))

    def remember_data(self, digests: Mapping[DataConfig, str], folder: Path) -> None:
        """Note which images and splits the study is searched on, and in which folder they were.

        Raises:
            StudyChangedError: it was begun with others.
        """
        shared = self.file.shared_data
        for config, digest in digests.items():
            key = DATA_KEY if config == shared else f"{DATA_KEY}:{config.digest}"
            before = self.optuna.user_attrs.get(key)
            if before is None:
                self.optuna.set_user_attr(key, digest)
            elif before != digest:
                raise StudyChangedError(
                    f"study {self.name!r} was begun on other images or another split (data digest {before}, now "
                    f"{digest}). Use the data it was begun with, or begin another study with --name."
                )
        self.optuna.set_user_attr(DATA_DIR_KEY, str(folder.absolute()))

    def remember_version(self, version: str) -> str | None:
        """Note with which version of this package the study goes on; return the one before if it was another."""
        before: str | None = self.optuna.user_attrs.get(VERSION_KEY)
        if before != version:
            self.optuna.set_user_attr(VERSION_KEY, version)
        return before if before != version else None

    def check_version(self, version: str) -> None:
        """Raise StudyChangedError if the study is worked on with another version of this package."""
        before = self.optuna.user_attrs.get(VERSION_KEY, version)
        if before != version:
            raise StudyChangedError(
                f"study {self.name!r} is worked on with kmnist-search {before}, this worker is {version}; their trials "
                f"might differ. Install kmnist-search {before} here, or let the study go on with {version}: "
                "kmnist-search run or submit does so."
            )

    def data_dir(self) -> Path | None:
        """Return the folder that the images were last read from, if this machine has it."""
        folder = self.optuna.user_attrs.get(DATA_DIR_KEY)
        return Path(folder) if folder is not None and Path(folder).is_dir() else None

    def touch(self) -> None:
        """Note that the study is worked on now."""
        self.optuna.set_user_attr(LAST_WORKED_KEY, datetime.now(UTC).isoformat())

    def cached_storage(self) -> CachedStorage:
        """Return an empty picture of the study for the samplers and pruners of one worker."""
        return CachedStorage(self.queue.study_id, self.direction)

    def trial(self, cached_storage: CachedStorage, claim: Claim, file: StudyFile) -> Trial:
        """Return a claimed trial, which is in the cached storage, ready to be asked for its hyperparameters."""
        seed = derived_seed(file.study.seed, claim.number, 1)
        study = optuna.Study(
            study_name=cached_storage.NAME,
            storage=cached_storage,
            sampler=sampler_of(file.study.sampler, file.space, seed, self._known_rows),
            pruner=pruner_of(file.study.pruner, file.train.epochs),
        )
        return Trial(study, claim.trial_id)

    def training_seed(self, number: int) -> int:
        """Return the seed of the training of trial `number`, whoever runs it and however often."""
        return derived_seed(int(self.settings["study"]["seed"]), number, 0)

    def check_is_there(self, connection: Connection) -> None:
        """Raise StudyNotFoundError if the study was deleted, even if another one has its id by now."""
        table = study_user_attributes
        its_folder = (table.c.study_id == self.queue.study_id) & (table.c.key == CHECKPOINTS_KEY)
        folder = connection.scalar(select(table.c.value_json).where(its_folder))
        if folder is None or json.loads(folder) != self.checkpoint_dir.name:
            raise StudyNotFoundError(f"study {self.name!r} in {self.storage.shown_url} was deleted meanwhile.")

    def counts(self) -> Counts:
        """Return how many trials are in which state."""
        with self.storage.reading() as connection:
            return self.queue.counts(connection)

    def fill(self, budget: int, first: Sequence[Mapping[str, Any]] = ()) -> int:
        """Add waiting trials, see `Queue.fill`."""
        with self.storage.writing() as connection:
            return self.queue.fill(connection, budget, first)

    def add(self, wanted: Sequence[Mapping[str, Any]]) -> int:
        """Add waiting trials with given hyperparameters, see `Queue.add`."""
        with self.storage.writing() as connection:
            return self.queue.add(connection, wanted)

    def datas_left(self, file: StudyFile) -> Sequence[DataConfig]:
        """Return which images the trials need that are waiting or running."""
        if file.shared_data is not None:
            return [file.shared_data]
        with self.storage.reading() as connection:
            asked = self.queue.asked(connection)
        left = (params for state, params in asked if state in (TrialState.WAITING, TrialState.RUNNING))
        return file.datas_of(left)

    def recover(self, max_retries: int | None = None) -> list[int]:
        """Put trials whose owner is gone back among the waiting, see `Queue.recover`; strike such workers off."""
        if max_retries is None:
            max_retries = int(self.settings["study"]["max_retries"])
        with self.storage.writing() as connection:
            remove_gone_workers(connection, self.queue.study_id)
            return self.queue.recover(connection, max_retries=max_retries)

    def workers(self) -> list[RegisteredWorker]:
        """Return who works on the study."""
        with self.storage.reading() as connection:
            return registered_workers(connection, self.queue.study_id)

    def trials(self) -> list[FrozenTrial]:
        """Return the trials that run or are finished, by number, without their reports and user attributes."""
        with self.storage.reading() as connection:
            return read_trials(connection, self.queue.study_id, with_reports=False)

    def with_details(self, trials: Sequence[FrozenTrial]) -> None:
        """Add their reports and user attributes to trials that lack them."""
        ids = [trial_id_of(trial) for trial in trials]
        with self.storage.reading() as connection:
            attributes, reports = read_attributes(connection, ids), read_reports(connection, ids)
        for trial in trials:
            trial.user_attrs = attributes[trial_id_of(trial)]
            trial.intermediate_values = reports[trial_id_of(trial)]

    def ranked(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Return the complete ones among the trials, best first."""
        complete = (trial for trial in trials if trial.state == TrialState.COMPLETE)
        highest_first = self.direction == StudyDirection.MAXIMIZE
        return sorted(complete, key=lambda trial: trial.values[0], reverse=highest_first)

    def complete(self) -> list[FrozenTrial]:
        """Return the complete trials, best first, without their reports and user attributes.

        Raises:
            NoCompleteTrialError: there is none.
        """
        ranked = self.ranked(self.trials())
        if not ranked:
            counts = self.counts()
            raise NoCompleteTrialError(
                f"study {self.name!r} has no complete trial yet: 0 of {counts.total} ({counts.fail} failed). "
                f"See: kmnist-search status {self.name}"
            )
        return ranked

    def is_as_good(self, value: float, target: float) -> bool:
        """Return whether a metric of `value` is at least as good as `target`."""
        return value >= target if self.direction == StudyDirection.MAXIMIZE else value <= target


def open_study(storage: Storage, file: StudyFile) -> SearchStudy:
    """Make the study that `file` describes, or go on with it.

    Raises:
        StudyChangedError: a study of that name was begun with other settings, or not by this package.
    """
    name = file.study.name
    try:
        study = optuna.load_study(study_name=name, storage=storage.rdb)
    except KeyError:
        study = optuna.create_study(
            study_name=name, storage=storage.rdb, direction=file.study.direction, load_if_exists=True
        )
    settings = file.model_dump(mode="json")
    before = _remember_first(storage, study, settings)
    if before is None:
        with experimental():
            study.set_metric_names([file.study.metric])
    else:
        _refuse_changes(storage, name, before, settings)
    return SearchStudy(storage, study)


def check_study(storage: Storage, file: StudyFile) -> None:
    """Check that the study that `file` describes could be gone on with, or is not there yet; nothing is made.

    Raises:
        StudyChangedError: a study of that name was begun with other settings.
    """
    if file.study.name in study_names(storage):
        before = find_study(storage, file.study.name).settings
        _refuse_changes(storage, file.study.name, before, file.model_dump(mode="json"))


def _refuse_changes(storage: Storage, name: str, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    # Read again, it has what has come to study files since it was begun, at its default.
    before = loads(as_toml(before), source=f"study {name!r}", name=name).model_dump(mode="json")
    if changes := list(_changes(before, settings)):
        raise StudyChangedError(
            f"study {name!r} in {storage.shown_url} was begun with other settings:\n"
            + "".join(f"  {change}\n" for change in changes)
            + "Trials of different settings cannot be compared. Go back to those it was begun with, or begin another "
            f"study: --name {name}-2"
        )


def find_study(storage: Storage, name: str | None) -> SearchStudy:
    """Return the study called `name`; with None the only one, or else the one last worked on.

    Raises:
        StudyNotFoundError: there is none.
    """
    names = study_names(storage)
    if not names:
        raise StudyNotFoundError(f"{storage.shown_url} holds no study yet. Begin one with: kmnist-search run")
    if name is None:
        name = names[0]
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1)
        advice = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise StudyNotFoundError(f"{storage.shown_url} has no study {name!r}.{advice} It holds: {', '.join(names)}.")
    return SearchStudy(storage, optuna.load_study(study_name=name, storage=storage.rdb))


def study_names(storage: Storage) -> list[str]:
    """Return the names of this package's studies, the one last worked on first."""
    table = study_user_attributes
    worked_at = table.alias("worked_at")
    # Not optuna's list of studies, which reads their notes and plots as well.
    query = (
        select(studies.c.study_name, worked_at.c.value_json)
        .join(table, (table.c.study_id == studies.c.study_id) & (table.c.key == FILE_KEY))
        .outerjoin(worked_at, (worked_at.c.study_id == studies.c.study_id) & (worked_at.c.key == LAST_WORKED_KEY))
        .order_by(studies.c.study_id)
    )
    with storage.reading() as connection:
        ours = connection.execute(query).all()
    return [row.study_name for row in sorted(ours, key=lambda row: row.value_json or "", reverse=True)]


def new_checkpoint_folder(name: str) -> str:
    """Return a folder name for the checkpoints of a new study, which it keeps when it is renamed."""
    return f"{name}-{uuid4().hex[:8]}"


def _remember_first(storage: Storage, study: optuna.Study, settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Note the settings of a new study and return None, or return those that it was begun with.

    Raises:
        StudyChangedError: it has trials, but no settings.
    """
    known: Mapping[str, Any] | None = study.user_attrs.get(FILE_KEY)
    if known is not None:
        return known
    table, queue = study_user_attributes, Queue(study_id_of(study))
    with storage.writing() as connection:
        queue.lock(connection)  # of processes that begin the study at the same moment, the first decides
        its_settings = (table.c.study_id == study_id_of(study)) & (table.c.key == FILE_KEY)
        if (before := connection.scalar(select(table.c.value_json).where(its_settings))) is not None:
            return dict(json.loads(before))
        if queue.counts(connection).total:
            raise StudyChangedError(
                f"{storage.shown_url} has a study {study.study_name!r} that kmnist-search did not make. "
                "Choose another --name."
            )
        new = {FILE_KEY: settings, CHECKPOINTS_KEY: new_checkpoint_folder(study.study_name)}
        rows = [
            {"study_id": study_id_of(study), "key": key, "value_json": json.dumps(value)} for key, value in new.items()
        ]
        put(connection, table, rows, unique=("study_id", "key"))
        return None


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    old, new = dict(_flat(before)), dict(_flat(now))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and not key.startswith(FREE_KEYS):
            yield f"{key}: {old.get(key, 'not there')} then, {new.get(key, 'not there')} now"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
