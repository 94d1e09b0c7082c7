"""Create, open, find and list the studies of a database."""

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import optuna
from sqlalchemy import select

from kmnist_search.database.storage import Storage
from kmnist_search.database.tables import put, studies, study_user_attributes
from kmnist_search.errors import StudyChangedError, StudyNotFoundError
from kmnist_search.optuna_internals import study_id_of
from kmnist_search.queue.queue import Queue
from kmnist_search.study.samplers import experimental
from kmnist_search.study.study import CHECKPOINTS_KEY, FILE_KEY, LAST_WORKED_KEY, SearchStudy
from kmnist_search.study_file.parser import loads
from kmnist_search.study_file.schema import RETRAINING_SUFFIX, RetrainTable, StudyFile
from kmnist_search.study_file.writer import as_toml

#: Settings that may change while a study is searched.
FREE_KEYS = (
    "study.name",
    "study.trials",
    "study.meant_for",
    "study.max_retries",
    "study.lease_seconds",
    "enqueue",
    "retrain",
)


def open_study(storage: Storage, file: StudyFile) -> SearchStudy:
    """Create the study that `file` describes, or open it if it exists.

    Raises:
        StudyChangedError: a study of that name has other settings, or another program made it.
    """
    name = file.study.name
    try:
        study = optuna.load_study(study_name=name, storage=storage.rdb)
    except KeyError:
        study = optuna.create_study(
            study_name=name, storage=storage.rdb, direction=file.study.direction, load_if_exists=True
        )
    settings = file.model_dump(mode="json")
    before = _stored_settings(storage, study, settings)
    if before is None:
        with experimental():
            study.set_metric_names([file.study.metric])
    else:
        _refuse_changes(storage, name, before, settings)
        if "retrain" in settings and settings["retrain"] != before.get("retrain", RetrainTable().model_dump()):
            study.set_user_attr(FILE_KEY, {**before, "retrain": settings["retrain"]})
    return SearchStudy(storage, study)


def check_study(storage: Storage, file: StudyFile) -> None:
    """Check that the study that `file` describes can be resumed or does not exist yet. Changes nothing.

    Raises:
        StudyChangedError: a study of that name has other settings.
    """
    if file.study.name in study_names(storage):
        before = find_study(storage, file.study.name).settings
        _refuse_changes(storage, file.study.name, before, file.model_dump(mode="json"))


def _refuse_changes(storage: Storage, name: str, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    # Parsing again gives defaults to settings that are newer than the study.
    before = loads(as_toml(before), source=f"study {name!r}", name=name).model_dump(mode="json")
    if changes := list(_changes(before, settings)):
        raise StudyChangedError(
            f"study {name!r} in {storage.shown_url} was started with other settings:\n"
            + "".join(f"  {change}\n" for change in changes)
            + "Trials with different settings cannot be compared. Use the first settings again, or start another "
            f"study: --name {name}-2"
        )


def companion_name(name: str) -> str:
    """Return the name of the study with the trainings that choose and retrain the winner of the study `name`."""
    return f"{name}{RETRAINING_SUFFIX}"


def find_companion(study: SearchStudy) -> SearchStudy | None:
    """Return the companion of a study; None if its winner was never retrained."""
    name = companion_name(study.name)
    found = find_study(study.storage, name) if name in study_names(study.storage) else None
    return found if found is not None and found.settings["study"].get("retrains") == study.name else None


def find_study(storage: Storage, name: str | None) -> SearchStudy:
    """Return the study called `name`; None means the only one, or the one last worked on, but no companion.

    Raises:
        StudyNotFoundError: there is none.
    """
    names = study_names(storage)
    if not names:
        raise StudyNotFoundError(f"{storage.shown_url} contains no study yet. Start one with: kmnist-search run")
    if name is None:
        companions = {companion_name(each) for each in names}
        name = next(each for each in names if each not in companions)
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1)
        advice = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise StudyNotFoundError(f"{storage.shown_url} has no study {name!r}.{advice} It contains: {', '.join(names)}.")
    return SearchStudy(storage, optuna.load_study(study_name=name, storage=storage.rdb))


def study_names(storage: Storage) -> list[str]:
    """Return the names of this package's studies, the one last worked on first."""
    table = study_user_attributes
    worked_at = table.alias("worked_at")
    # Optuna's own list of studies would also read their notes and plots.
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
    """Return a name for the checkpoint folder of a new study. The study keeps it when it is renamed."""
    return f"{name}-{uuid4().hex[:8]}"


def _stored_settings(storage: Storage, study: optuna.Study, settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Write the settings of a new study and return None, or return the settings of an existing one.

    Raises:
        StudyChangedError: it has trials, but no settings.
    """
    known: Mapping[str, Any] | None = study.user_attrs.get(FILE_KEY)
    if known is not None:
        return known
    table, queue = study_user_attributes, Queue(study_id_of(study))
    with storage.writing() as connection:
        queue.lock(connection)  # if several processes create the study at once, the first one decides
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
            then, since = ("not set" if each.get(key) is None else each[key] for each in (old, new))
            yield f"{key}: {then} then, {since} now"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
