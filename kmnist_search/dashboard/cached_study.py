"""One study in memory, with all its trials, updated by reading only the trials that may have changed.

Finished trials change only when they resume after a pause, or get or lose artifacts, and waiting trials when they are
claimed. So new trials, running trials, and those with another state, another end or other artifacts than before are
read. `CachedStorage.read_news` does not fit: the page also shows waiting trials and attributes, and another study may
get the id of a deleted one.
"""

import json
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Table, select
from sqlalchemy.engine import Connection

from kmnist_search.database.tables import (
    studies,
    study_directions,
    study_system_attributes,
    study_user_attributes,
    system_attributes,
    trials,
)
from kmnist_search.database.trial_reader import local_time, read_attributes, read_reports, read_trials
from kmnist_search.optuna_internals import ARTIFACT_KEY_PREFIX, FrozenStudy, study_id_of, trial_id_of

#: Trials that are read in one statement, whose parameters are their ids.
BATCH = 1000
#: The largest id that the tables can hold.
MAX_ID = 2**31 - 1


class CachedStudy:
    """A study and its trials.

    Attributes:
        study: the study without its trials.
        trials: all trials, by number.
        name: a random name, which changes when another study has the id of this one.
    """

    def __init__(self, connection: Connection, study: FrozenStudy) -> None:
        self.study = study
        self.trials: list[FrozenTrial] = []
        self.name, self._editions = secrets.token_hex(8), 0
        self._known: dict[int, FrozenTrial] = {}
        self.update(connection, study)

    @property
    def edition(self) -> str:
        """Changes whenever something in the study changes."""
        return f"{self.name}-{self._editions}"

    def trial(self, trial_id: int) -> FrozenTrial | None:
        """Return a trial; None if the study has none with this id."""
        return self._known.get(trial_id)

    def update(self, connection: Connection, study: FrozenStudy) -> None:
        """Read what may have changed."""
        is_same = self._is_same_study(connection, study)
        if not is_same:
            self._known, self.name = {}, secrets.token_hex(8)
        news = self._news(connection, self._possibly_changed(connection))
        if news or not is_same or study != self.study or not self._editions:
            self._known.update(news)
            self.trials = sorted(self._known.values(), key=lambda trial: trial.number)
            self.study = study
            self._editions += 1

    def _is_same_study(self, connection: Connection, study: FrozenStudy) -> bool:
        """Return whether this is the study that was read: a new one can have the id and name of a deleted one."""
        complete = next((trial for trial in self.trials if trial.state == TrialState.COMPLETE), None)
        if complete is None:
            return study == self.study
        now = _read(connection, study_id_of(self.study), [trial_id_of(complete)])
        return [trial.datetime_complete for trial in now] == [complete.datetime_complete]

    def _possibly_changed(self, connection: Connection) -> list[int]:
        """Return the ids of the trials that may have changed, and of new ones."""
        columns = trials.c.trial_id, trials.c.state, trials.c.datetime_complete
        query = select(*columns).where(trials.c.study_id == study_id_of(self.study))
        artifacts = _artifacts(connection, study_id_of(self.study))
        known = {
            key: (trial.state, trial.datetime_complete, _artifact_keys(trial))
            for key, trial in self._known.items()
            if trial.state != TrialState.RUNNING
        }
        return sorted(
            trial_id
            for trial_id, state, end in connection.execute(query)
            if known.get(trial_id) != (state, local_time(end), artifacts.get(trial_id, set()))
        )

    def _news(self, connection: Connection, trial_ids: Sequence[int]) -> dict[int, FrozenTrial]:
        """Return those of the trials that have changed, by id."""
        return {
            trial_id_of(trial): trial
            for first in range(0, len(trial_ids), BATCH)
            for trial in _read(connection, study_id_of(self.study), trial_ids[first : first + BATCH])
            if trial != self._known.get(trial_id_of(trial))
        }


def _artifacts(connection: Connection, study_id: int) -> dict[int, set[str]]:
    """Return the keys of the artifacts of trials by trial id."""
    table = system_attributes
    query = (
        select(table.c.trial_id, table.c.key)
        .join(trials, trials.c.trial_id == table.c.trial_id)
        .where(trials.c.study_id == study_id, table.c.key.startswith(ARTIFACT_KEY_PREFIX))
    )
    found: dict[int, set[str]] = defaultdict(set)
    for trial_id, key in connection.execute(query):
        found[trial_id].add(key)
    return found


def _artifact_keys(trial: FrozenTrial) -> set[str]:
    return {key for key in trial.system_attrs if key.startswith(ARTIFACT_KEY_PREFIX)}


def _read(connection: Connection, study_id: int, trial_ids: Collection[int]) -> Iterator[FrozenTrial]:
    """Yield trials with their reports, and with their attributes but lists and dictionaries.

    The page prints an attribute on one line. Curves and configurations would be lines of some hundred characters.
    """
    read = read_trials(connection, study_id, only=trial_ids, waiting_before=MAX_ID)
    attributes = read_attributes(connection, trial_ids, with_nested=False)
    running = [trial_id_of(trial) for trial in read if not trial.state.is_finished()]
    reports = read_reports(connection, running) if running else {}
    for trial in read:
        trial.user_attrs = attributes[trial_id_of(trial)]
        trial.intermediate_values = reports.get(trial_id_of(trial), trial.intermediate_values)
        yield trial


def read_studies(connection: Connection) -> list[FrozenStudy]:
    """Return all studies by id, without their trials."""
    directions: dict[int, list[Any]] = defaultdict(list)
    columns = (study_directions.c.study_id, study_directions.c.direction)
    for study_id, direction in connection.execute(select(*columns).order_by(study_directions.c.objective)):
        directions[study_id].append(direction)
    user_attrs = _attributes(connection, study_user_attributes)
    system_attrs = _attributes(connection, study_system_attributes)
    return [
        FrozenStudy(
            study_name=name,
            direction=None,
            directions=directions[study_id],
            user_attrs=user_attrs[study_id],
            system_attrs=system_attrs[study_id],
            study_id=study_id,
        )
        for study_id, name in connection.execute(
            select(studies.c.study_id, studies.c.study_name).order_by(studies.c.study_id)
        )
        if directions[study_id]
    ]


def _attributes(connection: Connection, table: Table) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    rows = select(table.c.study_id, table.c.key, table.c.value_json).order_by(*table.primary_key)
    for study_id, key, text in connection.execute(rows):
        found[study_id][key] = json.loads(text)
    return found
