"""The tables of a database of studies: Optuna's, and this package's leases and workers.

Claims, leases and reports are written in SQL, because each Optuna call is its own transaction, and between two of them
another process could take the same trial.
"""

from functools import lru_cache
from typing import Any

from sqlalchemy import Column, ColumnElement, Float, ForeignKey, Integer, String, Table, Text, literal_column
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from kmnist_search.optuna_internals import (
    metadata,
    params as params,
    reports as reports,
    studies as studies,
    study_directions as study_directions,
    study_system_attributes as study_system_attributes,
    study_user_attributes as study_user_attributes,
    system_attributes as system_attributes,
    trials as trials,
    user_attributes as user_attributes,
    values as values,
)

#: Who runs a trial, and until when: a lease holds for `seconds` after `renewed_at` (seconds since 1970, database
#: clock). It is part of Optuna's metadata, so it is made together with Optuna's tables.
leases = Table(
    "kmnist_search_leases",
    metadata,
    Column("trial_id", ForeignKey(trials.c.trial_id, ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("token", String(32), nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("renewed_at", Float(53), nullable=False),
    Column("seconds", Float(53), nullable=False),
)

#: The workers of each study, whether or not they run a trial, see `queue/workers.py`. Times as in `leases`.
workers = Table(
    "kmnist_search_workers",
    metadata,
    Column("worker_id", String(32), primary_key=True),
    Column("study_id", ForeignKey(studies.c.study_id, ondelete="CASCADE"), nullable=False),
    Column("owner", Text, nullable=False),
    Column("facts", Text, nullable=False),
    Column("finished", Integer, nullable=False),
    Column("began_at", Float(53), nullable=False),
    Column("seen_at", Float(53), nullable=False),
    Column("seconds", Float(53), nullable=False),
)


def database_now(dialect: str) -> ColumnElement[float]:
    """Return the statement's time in seconds since 1970 by the database clock, which all workers share."""
    if dialect == "postgresql":
        return literal_column("extract(epoch from clock_timestamp())::float8", Float(53))
    return literal_column("(julianday('now') - 2440587.5) * 86400.0", Float(53))


def database_started(dialect: str) -> ColumnElement[float]:
    """Return the start time of the database server by the same clock; no lease could be renewed before it."""
    if dialect == "postgresql":
        return literal_column("extract(epoch from pg_postmaster_start_time())::float8", Float(53))
    return literal_column("0.0", Float(53))  # SQLite has no server


def put(connection: Connection, table: Table, rows: list[dict[str, Any]], *, unique: tuple[str, ...]) -> None:
    """Write rows; each replaces an existing row with the same values in `unique`."""
    if rows:
        connection.execute(upsert(connection.dialect.name, table, tuple(rows[0]), unique), rows)


@lru_cache
def upsert(dialect: str, table: Table, columns: tuple[str, ...], unique: tuple[str, ...]) -> Any:
    """Return the statement that inserts a row, or replaces the one with the same values in `unique`."""
    insert: Any = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = insert(table)
    changed = {name: statement.excluded[name] for name in columns if name not in unique}
    return statement.on_conflict_do_update(index_elements=unique, set_=changed)
