"""The tables of a database of studies as SQL sees them: optuna's, and two of ours. Knows no transaction.

optuna's own calls cost a transaction each, and between two of them another process can take the same trial. So what
must happen together is written in SQL on optuna's tables (its models are private: `optuna>=5.0,<6` is what they were
read from).
"""

from functools import lru_cache
from typing import Any

from optuna.storages._rdb import models
from sqlalchemy import Column, ColumnElement, Float, ForeignKey, Integer, String, Table, Text, literal_column
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

studies: Table = models.StudyModel.__table__
study_directions: Table = models.StudyDirectionModel.__table__
study_user_attributes: Table = models.StudyUserAttributeModel.__table__
study_system_attributes: Table = models.StudySystemAttributeModel.__table__
trials: Table = models.TrialModel.__table__
params: Table = models.TrialParamModel.__table__
values: Table = models.TrialValueModel.__table__
reports: Table = models.TrialIntermediateValueModel.__table__
user_attributes: Table = models.TrialUserAttributeModel.__table__
system_attributes: Table = models.TrialSystemAttributeModel.__table__

#: Who runs a trial, and until when: a lease holds for `seconds` after `renewed_at` (seconds since 1970 by the
#: database's clock). It stands in optuna's metadata so that it is made together with optuna's tables.
leases = Table(
    "kmnist_search_leases",
    models.BaseModel.metadata,
    Column("trial_id", ForeignKey(trials.c.trial_id, ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("token", String(32), nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("renewed_at", Float(53), nullable=False),
    Column("seconds", Float(53), nullable=False),
)

#: Who works on a study, whether or not a trial is at work there; see `roster.py`. Times as in `leases`.
workers = Table(
    "kmnist_search_workers",
    models.BaseModel.metadata,
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
    """Return the seconds since 1970 by the database's clock, which all workers share, at the time of the statement."""
    if dialect == "postgresql":
        return literal_column("extract(epoch from clock_timestamp())::float8", Float(53))
    return literal_column("(julianday('now') - 2440587.5) * 86400.0", Float(53))


def database_started(dialect: str) -> ColumnElement[float]:
    """Return when the database server started, by the same clock: before that nobody could renew a lease."""
    if dialect == "postgresql":
        return literal_column("extract(epoch from pg_postmaster_start_time())::float8", Float(53))
    return literal_column("0.0", Float(53))  # SQLite has no server


def put(connection: Connection, table: Table, rows: list[dict[str, Any]], *, unique: tuple[str, ...]) -> None:
    """Write rows; one that agrees with a row that is there in `unique` replaces it."""
    if rows:
        connection.execute(upsert(connection.dialect.name, table, tuple(rows[0]), unique), rows)


@lru_cache
def upsert(dialect: str, table: Table, columns: tuple[str, ...], unique: tuple[str, ...]) -> Any:
    """Return the statement that writes a row with these columns, or replaces the one that agrees in `unique`."""
    insert: Any = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = insert(table)
    changed = {name: statement.excluded[name] for name in columns if name not in unique}
    return statement.on_conflict_do_update(index_elements=unique, set_=changed)
