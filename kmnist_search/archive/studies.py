"""Whole studies: export, import, copy, rename, delete.

Every change of a database is one transaction.

A running trial becomes a waiting one in the target, since its worker belongs to the source. Everything else is kept,
including reports and the count of lost workers. Checkpoints are not part of a study, so a waiting trial starts from the
beginning in the target. Artifacts and plots are not part of it either; workers there draw the plots again.
"""

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from optuna.trial import TrialState
from sqlalchemy import delete, select, text, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from kmnist_search.archive.file import lines_of, records_in
from kmnist_search.archive.records import StudyRecord, TrialRecord, add_study, add_trials, read_study
from kmnist_search.database import tables
from kmnist_search.database.storage import Storage
from kmnist_search.errors import (
    ArchiveError,
    ArtifactsLeftError,
    ConfigError,
    StudyExistsError,
    StudyInUseError,
    StudyNotFoundError,
)
from kmnist_search.host.files import whole_file
from kmnist_search.optuna_internals import ARTIFACT_KEY_PREFIX, ArtifactStore
from kmnist_search.study.artifacts import artifact_id_in, open_artifact_store, remove_all
from kmnist_search.study.model_store import marker_of
from kmnist_search.study.opening import companion_name, find_companion, find_study, new_checkpoint_folder, study_names
from kmnist_search.study.study import CHECKPOINTS_KEY, FILE_KEY, SearchStudy
from kmnist_search.study_file.schema import RETRAINING_SUFFIX, StudyTable


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A study that was added to a database: its name there, its trials, and how many of them ran before."""

    name: str
    num_trials: int
    num_requeued: int


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """A deleted study: its trials, and its artifacts, with those of its companion; how many were not in the store."""

    num_trials: int = 0
    num_artifacts: int = 0
    num_missing: int = 0


def export_study(storage: Storage, name: str, file: Path) -> int:
    """Write a consistent snapshot of a study to `file`, completely or not at all; return the number of its trials.

    Raises:
        StudyNotFoundError: there is no such study.
        ArchiveError: the file cannot be written, or is the database itself; an old file stays unchanged.
    """
    database = Path(storage.url.database or "") if storage.url.get_backend_name() == "sqlite" else None
    if database and file.resolve() in [Path(f"{database.resolve()}{end}") for end in ("", "-wal", "-shm")]:
        raise ArchiveError(f"{file}: is the database itself. Export to another file.")
    with whole_file(file, error=ArchiveError) as part, part.open("wb") as out:
        return write_study(storage, name, out)


def write_study(storage: Storage, name: str, out: BinaryIO) -> int:
    """Write a study to an open file, as `export_study` does.

    Raises:
        StudyNotFoundError: there is no such study.
        OSError: `out` cannot be written.
    """
    study_id = find_study(storage, name).queue.study_id
    with _one_moment(storage) as connection:
        study, trials = read_study(connection, study_id)
        out.writelines(lines_of(study, trials))
    return study.num_trials


def import_study(storage: Storage, file: Path, name: str | None = None) -> Arrival:
    """Add the study in `file` to the database, under `name` if given, completely or not at all.

    Args:
        storage: the database.
        file: the exported study; "-" is the standard input.
        name: new name of the study.

    Raises:
        ArchiveError: the file is no exported study, or is damaged or incomplete.
        ConfigError: `name` is no valid name of a study.
        StudyExistsError: a study of that name exists already.
    """
    is_piped = str(file) == "-"
    shown = Path("standard input") if is_piped else file
    try:
        with nullcontext(sys.stdin.buffer) if is_piped else file.open("rb") as lines:
            return _put(storage, *records_in(lines, shown), name)
    except OSError as error:
        raise ArchiveError(f"{shown}: cannot be read: {error.strerror}.") from None


def copy_study(source: Storage, name: str, target: Storage, new_name: str | None = None) -> Arrival:
    """Copy a study to another database, or within one under a new name, completely or not at all.

    Raises:
        StudyNotFoundError: there is no such study.
        ConfigError: `new_name` is no valid name of a study.
        StudyExistsError: a study of that name exists already.
    """
    study_id = find_study(source, name).queue.study_id
    with _one_moment(source) as connection:
        return _put(target, *read_study(connection, study_id), new_name)


def rename_study(storage: Storage, old: str, new: str, *, force: bool = False) -> None:
    """Rename a study and its companion, if it has one, also in their stored settings.

    With `force`, workers that run its trials continue and still use the old name.

    Raises:
        StudyNotFoundError: there is no such study.
        ConfigError: `new` is no valid name of a study.
        StudyExistsError: another study has that name.
        StudyInUseError: trials of it run, and `force` is not set.
    """
    _check_name(new)
    if new.endswith(RETRAINING_SUFFIX):
        raise ConfigError(f"names that end in {RETRAINING_SUFFIX} are those of retrainings. Choose another name.")
    study = find_study(storage, old)
    if source := study.settings["study"].get("retrains"):
        raise ConfigError(f"study {old!r} is the retraining of {source!r}: rename that one.")
    companion = find_companion(study)
    if companion is not None and companion_name(new) in study_names(storage):
        raise StudyExistsError(f"{storage.shown_url} has a study {companion_name(new)!r} already. Choose another name.")
    with storage.writing() as connection, _free_name(storage, new, "Choose another name."):
        _rename(connection, study, new, {"name": new}, force=force)
        if companion is not None:
            name = companion_name(new)
            _rename(connection, companion, name, {"name": name, "retrains": new}, force=force)


def _rename(connection: Connection, study: SearchStudy, name: str, settings: Mapping[str, str], *, force: bool) -> None:
    study_id, attributes = study.queue.study_id, tables.study_user_attributes
    _lock(connection, study_id)
    if not force:
        _check_nothing_runs(connection, study_id, study.name, "rename")
    connection.execute(update(tables.studies).where(tables.studies.c.study_id == study_id).values(study_name=name))
    its_settings = (attributes.c.study_id == study_id) & (attributes.c.key == FILE_KEY)
    before = connection.execute(select(attributes.c.value_json).where(its_settings)).scalar_one()
    connection.execute(update(attributes).where(its_settings).values(value_json=_with(before, settings)))


def delete_study(storage: Storage, name: str, *, force: bool = False, store: ArtifactStore | None = None) -> Deletion:
    """Delete a study with its trials, checkpoints, artifacts, its companion and everything else that belongs to it.

    Args:
        storage: the database.
        name: name of the study.
        force: delete even while trials of it run.
        store: store of the artifacts; None for the folder beside the database.

    Raises:
        StudyNotFoundError: there is no such study.
        StudyInUseError: trials of it run, and `force` is not set.
        ArtifactsLeftError: the study was deleted, but some of its artifacts were not.
    """
    study = find_study(storage, name)
    companion = find_companion(study)
    first = Deletion() if companion is None else delete_study(storage, companion.name, force=force, store=store)
    study_id, marker = study.queue.study_id, marker_of(study)
    trials = tables.trials
    of_study = trials.c.study_id == study_id
    its_trials = select(trials.c.trial_id).where(of_study)
    with storage.writing() as connection:
        _lock(connection, study_id)
        if not force:
            _check_nothing_runs(connection, study_id, name, "delete")
        artifacts = [*_artifacts(connection, study_id), *marker]
        num_trials = 0
        for table in reversed(trials.metadata.sorted_tables):  # delete rows before the rows that they refer to
            if "study_id" in table.c:
                deleted = connection.execute(delete(table).where(table.c.study_id == study_id))
                num_trials = deleted.rowcount if table is trials else num_trials
            elif "trial_id" in table.c:
                connection.execute(delete(table).where(table.c.trial_id.in_(its_trials)))
    shutil.rmtree(study.checkpoint_dir, ignore_errors=True)  # it may be missing, or on another machine
    try:
        missing = len(artifacts) - remove_all(store or open_artifact_store(None, storage.url), artifacts)
    except Exception as error:  # each store has its own errors
        raise ArtifactsLeftError(
            f"study {name!r} is deleted, but not all of its {len(artifacts)} artifacts: {error}"
        ) from None
    return Deletion(
        num_trials=num_trials,
        num_artifacts=first.num_artifacts + len(artifacts),
        num_missing=first.num_missing + missing,
    )


def _artifacts(connection: Connection, study_id: int) -> list[str]:
    """Return the ids of the artifacts of a study and of its trials."""
    of_trials, of_study, trials = tables.system_attributes, tables.study_system_attributes, tables.trials
    queries = (
        select(of_trials.c.value_json)
        .join(trials, trials.c.trial_id == of_trials.c.trial_id)
        .where(trials.c.study_id == study_id, of_trials.c.key.startswith(ARTIFACT_KEY_PREFIX)),
        select(of_study.c.value_json).where(
            of_study.c.study_id == study_id, of_study.c.key.startswith(ARTIFACT_KEY_PREFIX)
        ),
    )
    found = [artifact_id_in(text) for query in queries for text in connection.scalars(query)]
    return [artifact_id for artifact_id in found if artifact_id is not None]


@contextmanager
def _one_moment(storage: Storage) -> Iterator[Connection]:
    """Yield a transaction whose statements all see one snapshot of the database."""
    with storage.reading() as connection:
        if connection.dialect.name == "postgresql":  # SQLite does so anyway
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        yield connection


def _lock(connection: Connection, study_id: int) -> None:
    of_study = tables.studies.c.study_id == study_id
    if connection.scalar(select(tables.studies.c.study_id).where(of_study).with_for_update()) is None:
        raise StudyNotFoundError("somebody else has just deleted the study.")


def _check_nothing_runs(connection: Connection, study_id: int, name: str, otherwise: str) -> None:
    trials = tables.trials
    of_study = (trials.c.study_id == study_id) & (trials.c.state == TrialState.RUNNING)
    running = connection.scalars(select(trials.c.number).where(of_study).order_by(trials.c.number)).all()
    if running:
        numbers = ", ".join(str(number) for number in running)
        raise StudyInUseError(
            f"study {name!r} has trials that run: {numbers}. Stop its workers first (Ctrl-C; if one was killed, "
            f"the next run resumes its trial), or {otherwise} the study all the same with --force."
        )


def _put(storage: Storage, study: StudyRecord, trials: Iterable[TrialRecord], name: str | None) -> Arrival:
    name = name if name is not None else study.name
    _check_name(name)
    settings = _with(study.user_attrs[FILE_KEY], {"name": name})
    own = {FILE_KEY: settings, CHECKPOINTS_KEY: json.dumps(new_checkpoint_folder(name))}
    named = study.model_copy(update={"name": name, "user_attrs": {**study.user_attrs, **own}})
    num_requeued = 0

    def arriving() -> Iterator[TrialRecord]:
        nonlocal num_requeued
        for trial in trials:
            if trial.state == "RUNNING":
                num_requeued += 1
                yield trial.model_copy(update={"state": "WAITING"})
            else:
                yield trial

    with storage.writing() as connection:
        with _free_name(storage, name, f"Put it there under another name: --name {name}-2"):
            study_id = add_study(connection, named)
        add_trials(connection, study_id, arriving())
    return Arrival(name=name, num_trials=study.num_trials, num_requeued=num_requeued)


def _check_name(name: str) -> None:
    try:
        StudyTable(name=name)
    except ConfigError:
        raise ConfigError(
            f"{name!r} cannot be the name of a study: use at most 100 letters, digits and _ . - "
            "and begin with a letter, a digit or _"
        ) from None


@contextmanager
def _free_name(storage: Storage, name: str, advice: str) -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise StudyExistsError(f"{storage.shown_url} has a study {name!r} already. {advice}") from None


def _with(settings: str, changes: Mapping[str, str]) -> str:
    """Return the stored settings with changes of the table [study]."""
    parsed: dict[str, Any] = json.loads(settings)
    if all(parsed["study"].get(key) == value for key, value in changes.items()):
        return settings  # unchanged, to the letter
    parsed["study"].update(changes)
    return json.dumps(parsed)
