"""Writes the changes of one trial to the database in the caller's transaction. Writing twice does no harm."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import TrialState
from sqlalchemy import Table, delete, or_, update
from sqlalchemy.engine import Connection

from kmnist_search.database.tables import params, put, reports, system_attributes, trials, user_attributes, values
from kmnist_search.optuna_internals import RUNG_KEY_PREFIX, stored_report, stored_value

REASON_KEY = "reason"
#: The system attribute of a paused trial: the number of epochs after which it paused. Its state is pruned.
PAUSED_KEY = "paused"


@dataclass(kw_only=True)
class Changes:
    """Changes of a running trial that are not in the database yet.

    Attributes:
        params: value (as Optuna stores it) and distribution by name.
        reports: value by step.
        ending: final state and values.
    """

    params: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)
    reports: dict[int, float] = field(default_factory=dict)
    user_attributes: dict[str, Any] = field(default_factory=dict)
    system_attributes: dict[str, Any] = field(default_factory=dict)
    ending: tuple[TrialState, Sequence[float]] | None = None

    def __bool__(self) -> bool:
        return any((self.params, self.reports, self.user_attributes, self.system_attributes, self.ending))


def write_changes(connection: Connection, trial_id: int, changes: Changes) -> None:
    """Write all changes of a trial except its ending."""
    proposed = [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": value,
            "distribution_json": distribution_to_json(distribution),
        }
        for name, (value, distribution) in changes.params.items()
    ]
    put(connection, params, proposed, unique=("trial_id", "param_name"))
    reported = [
        {"trial_id": trial_id, "step": step, "intermediate_value": number, "intermediate_value_type": kind}
        for step, value in changes.reports.items()
        for number, kind in (stored_report(value),)
    ]
    put(connection, reports, reported, unique=("trial_id", "step"))
    set_user_attributes(connection, trial_id, changes.user_attributes)
    _set(connection, system_attributes, trial_id, changes.system_attributes)


def write_values(connection: Connection, trial_id: int, results: Sequence[float]) -> None:
    """Write the final values of a trial."""
    rows = [
        {"trial_id": trial_id, "objective": objective, "value": number, "value_type": kind}
        for objective, value in enumerate(results)
        for number, kind in (stored_value(value),)
    ]
    put(connection, values, rows, unique=("trial_id", "objective"))


def set_user_attributes(connection: Connection, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Write user attributes of a trial."""
    _set(connection, user_attributes, trial_id, attributes)


def set_state(connection: Connection, trial_id: int, state: TrialState) -> None:
    """Set the state of a trial, and its end time if it is finished."""
    now = {"datetime_complete": utc_now()} if state.is_finished() else {}
    connection.execute(update(trials).where(trials.c.trial_id == trial_id).values(state=state, **now))


def forget_reports(connection: Connection, trial_id: int) -> None:
    """Delete a trial's reports, the rungs that a pruner stored for it, and that it paused."""
    table = system_attributes
    of_rungs = or_(table.c.key.startswith(RUNG_KEY_PREFIX), table.c.key == PAUSED_KEY)
    connection.execute(delete(reports).where(reports.c.trial_id == trial_id))
    connection.execute(delete(table).where(table.c.trial_id == trial_id, of_rungs))


def utc_now() -> datetime:
    """Return the present time as Optuna's tables store it."""
    return datetime.now(UTC).replace(tzinfo=None)


def _set(connection: Connection, table: Table, trial_id: int, attributes: Mapping[str, Any]) -> None:
    rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]
    put(connection, table, rows, unique=("trial_id", "key"))
