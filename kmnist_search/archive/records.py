"""A study as records, which are read from one database and written to another in batches.

A record holds what the tables hold, in optuna's own representation, so that nothing is rounded or reinterpreted: a
hyperparameter is the number that samplers work on, with its distribution; distributions and attributes are the stored
JSON text, unchanged (it may hold NaN, which strict JSON does not allow).
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Annotated, Any, Literal

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import TrialState
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)
from sqlalchemy import Row, Table, func, insert, select
from sqlalchemy.engine import Connection

from kmnist_search.database import tables
from kmnist_search.optuna_internals import (
    ARTIFACT_KEY_PREFIX,
    MAX_NAME_LENGTH,
    PLOT_KEY_PREFIX,
    contains,
    report_of,
    stored_report,
    stored_value,
    value_of,
)

#: Prefixes of attributes that are not exported: the dashboard's plots, which are drawn again in the target, its
#: references to artifacts, which lie in this storage's store, and the leader lease for both.
STAYING_KEYS = (PLOT_KEY_PREFIX, ARTIFACT_KEY_PREFIX, "kmnist_search:")

#: Trials in memory at a time. 10,000 trials of 20 reports take 2.2 s to read and 3 s to write (SQLite), in 30 MB.
BATCH = 500


def _number(value: Any) -> Any:
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def _json_text(text: str) -> str:
    json.loads(text)
    return text


@lru_cache(maxsize=1000)
def _distribution(text: str) -> BaseDistribution:
    try:
        return json_to_distribution(text)
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{text!r} is no distribution: {error}") from None


def _parameter(parameter: tuple[float, str]) -> tuple[float, str]:
    value, text = parameter
    if not contains(_distribution(text), value):
        raise ValueError(f"{value} is not of the distribution {text}")
    return parameter


Count = Annotated[int, Field(ge=0, lt=2**31)]
Key = Annotated[str, Field(max_length=MAX_NAME_LENGTH)]
JsonText = Annotated[str, AfterValidator(_json_text)]
#: A float, or one of the strings "NaN", "Infinity" and "-Infinity" in JSON.
Number = Annotated[float, BeforeValidator(_number)]
Moment = Annotated[AwareDatetime, PlainSerializer(lambda moment: moment.isoformat(timespec="microseconds"))]
#: Optuna's internal number, and the distribution as JSON.
Parameter = Annotated[
    tuple[Annotated[float, Field(allow_inf_nan=False)], str],
    AfterValidator(_parameter),
]


class Record(BaseModel):
    """A frozen value, checked when it is read from JSON; raises pydantic's ValidationError."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_inf_nan="strings")


class StudyRecord(Record):
    """A study without its trials."""

    name: Key
    directions: Annotated[tuple[Literal["MINIMIZE", "MAXIMIZE"], ...], Field(min_length=1)]
    user_attrs: dict[Key, JsonText]
    system_attrs: dict[Key, JsonText]
    num_trials: Count


class TrialRecord(Record):
    """One complete record of a trial. Times are UTC; `values` is empty if the trial has none."""

    number: Count
    state: Literal["RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING"]
    datetime_start: Moment | None
    datetime_complete: Moment | None
    params: dict[Key, Parameter]
    values: tuple[Number, ...]
    intermediate_values: dict[Annotated[int, Field(ge=-(2**31), lt=2**31)], Number]
    user_attrs: dict[Key, JsonText]
    system_attrs: dict[Key, JsonText]

    @model_validator(mode="after")
    def _values_fit(self) -> "TrialRecord":
        if any(value != value for value in self.values):
            raise ValueError("values: NaN is no value of a trial")
        if self.state == "COMPLETE" and not self.values:
            raise ValueError("values: a complete trial has at least one")
        return self


def read_study(connection: Connection, study_id: int) -> tuple[StudyRecord, Iterator[TrialRecord]]:
    """Return a study and its trials in the order of their numbers; trials are read as they are drawn.

    The records are consistent if the connection's transaction is a snapshot.
    """
    of_study = tables.studies.c.study_id == study_id
    directions, trials = tables.study_directions, tables.trials
    study = StudyRecord.model_construct(
        name=connection.execute(select(tables.studies.c.study_name).where(of_study)).scalar_one(),
        directions=tuple(
            direction.name
            for direction in connection.scalars(
                select(directions.c.direction).where(directions.c.study_id == study_id).order_by(directions.c.objective)
            )
        ),
        user_attrs=_study_attributes(connection, tables.study_user_attributes, study_id),
        system_attrs=_study_attributes(connection, tables.study_system_attributes, study_id),
        num_trials=connection.execute(select(func.count()).where(trials.c.study_id == study_id)).scalar_one(),
    )
    return study, _read_trials(connection, study_id)


def _study_attributes(connection: Connection, table: Table, study_id: int) -> dict[str, str]:
    rows = select(table.c.key, table.c.value_json).where(table.c.study_id == study_id).order_by(*table.primary_key)
    return {row.key: row.value_json for row in connection.execute(rows) if not row.key.startswith(STAYING_KEYS)}


def _read_trials(connection: Connection, study_id: int) -> Iterator[TrialRecord]:
    trials = tables.trials
    of_study = trials.c.study_id == study_id
    last = connection.execute(select(func.max(trials.c.number)).where(of_study)).scalar_one()
    for first in range(0, -1 if last is None else last + 1, BATCH):
        batch = of_study & trials.c.number.between(first, first + BATCH - 1)
        rows = connection.execute(select(trials).where(batch).order_by(trials.c.number, trials.c.trial_id)).all()
        yield from _with_children(connection, rows)


def _with_children(connection: Connection, trials: Sequence[Row[Any]]) -> Iterator[TrialRecord]:
    ids = [trial.trial_id for trial in trials]

    def rows_of(table: Table, *order: Any) -> dict[int, list[Row[Any]]]:
        rows: dict[int, list[Row[Any]]] = defaultdict(list)
        for row in connection.execute(
            select(table).where(table.c.trial_id.in_(ids)).order_by(table.c.trial_id, *(order or table.primary_key))
        ):
            rows[row.trial_id].append(row)
        return rows

    params, values = rows_of(tables.params), rows_of(tables.values, tables.values.c.objective)
    reports = rows_of(tables.reports, tables.reports.c.step)
    user_attrs, system_attrs = rows_of(tables.user_attributes), rows_of(tables.system_attributes)
    for trial in trials:
        key = trial.trial_id
        yield TrialRecord.model_construct(
            number=trial.number,
            state=trial.state.name,
            datetime_start=_aware(trial.datetime_start),
            datetime_complete=_aware(trial.datetime_complete),
            params={row.param_name: (row.param_value, row.distribution_json) for row in params[key]},
            values=tuple(value_of(row.value, row.value_type) for row in values[key]),
            intermediate_values={
                row.step: report_of(row.intermediate_value, row.intermediate_value_type) for row in reports[key]
            },
            user_attrs={row.key: row.value_json for row in user_attrs[key]},
            system_attrs={row.key: row.value_json for row in system_attrs[key] if not row.key.startswith(STAYING_KEYS)},
        )


def add_study(connection: Connection, study: StudyRecord) -> int:
    """Write a study without trials and return its id.

    Raises:
        sqlalchemy.exc.IntegrityError: a study of that name exists already.
    """
    insertion = insert(tables.studies).values(study_name=study.name).returning(tables.studies.c.study_id)
    study_id = int(connection.execute(insertion).scalar_one())
    rows: dict[Table, list[dict[str, Any]]] = {
        tables.study_directions: [
            {"study_id": study_id, "objective": objective, "direction": StudyDirection[direction]}
            for objective, direction in enumerate(study.directions)
        ]
    }
    for table, attributes in (
        (tables.study_user_attributes, study.user_attrs),
        (tables.study_system_attributes, study.system_attrs),
    ):
        rows[table] = [{"study_id": study_id, "key": key, "value_json": text} for key, text in attributes.items()]
    _insert(connection, rows)
    return study_id


def add_trials(connection: Connection, study_id: int, trials: Iterable[TrialRecord]) -> None:
    """Write trials. They must come in the order of their numbers, which becomes the order of their ids."""
    remaining = iter(trials)
    while batch := list(islice(remaining, BATCH)):
        _add_batch(connection, study_id, batch)


def _add_batch(connection: Connection, study_id: int, batch: Sequence[TrialRecord]) -> None:
    own_rows = [
        {
            "study_id": study_id,
            "number": trial.number,
            "state": TrialState[trial.state],
            "datetime_start": _naive(trial.datetime_start),
            "datetime_complete": _naive(trial.datetime_complete),
        }
        for trial in batch
    ]
    insertion = insert(tables.trials).returning(tables.trials.c.trial_id, sort_by_parameter_order=True)
    rows: dict[Table, list[dict[str, Any]]] = defaultdict(list)
    for trial_id, trial in zip(connection.scalars(insertion, own_rows), batch, strict=True):
        for name, (number, distribution) in trial.params.items():
            param = {"param_name": name, "param_value": number, "distribution_json": distribution}
            rows[tables.params].append({"trial_id": trial_id, **param})
        for objective, value in enumerate(trial.values):
            stored, kind = stored_value(value)
            rows[tables.values].append(
                {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}
            )
        for step, value in trial.intermediate_values.items():
            stored, kind = stored_report(value)
            report = {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}
            rows[tables.reports].append({"trial_id": trial_id, **report})
        for table, attributes in (
            (tables.user_attributes, trial.user_attrs),
            (tables.system_attributes, trial.system_attrs),
        ):
            rows[table] += [{"trial_id": trial_id, "key": key, "value_json": text} for key, text in attributes.items()]
    _insert(connection, rows)


def _insert(connection: Connection, rows: Mapping[Table, Sequence[dict[str, Any]]]) -> None:
    for table, listed in rows.items():
        if listed:
            connection.execute(insert(table), listed)


def _aware(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


def _naive(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)
