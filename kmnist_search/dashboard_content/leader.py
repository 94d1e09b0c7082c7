"""The leader lease: only the worker that holds it writes what the dashboard shows.

It is one of the study's attributes, taken and given up in transactions that lock the study.
"""

import json
from dataclasses import asdict, dataclass, replace

from sqlalchemy import select
from sqlalchemy.engine import Connection

from kmnist_search.database.tables import database_now, put, study_system_attributes
from kmnist_search.queue.queue import Counts, Queue

#: Studies of earlier versions have it, so its old name stays.
KEY = "kmnist_search:showcase"


@dataclass(frozen=True, kw_only=True)
class LeaderLease:
    """The leader lease as stored in the database.

    Attributes:
        worker: its last holder; empty if there never was one.
        until: its expiry, in seconds since 1970 by the database clock.
        shown: trial counts by state when all trials were last shown; None if they never were.
    """

    worker: str = ""
    until: float = 0.0
    shown: Counts | None = None


def read(connection: Connection, queue: Queue) -> LeaderLease:
    """Return the present leader lease."""
    table = study_system_attributes
    row = (table.c.study_id == queue.study_id) & (table.c.key == KEY)
    text = connection.scalar(select(table.c.value_json).where(row))
    if text is None:
        return LeaderLease()
    known = json.loads(text)
    return LeaderLease(worker=known["worker"], until=known["until"], shown=known["shown"] and Counts(**known["shown"]))


def acquire(connection: Connection, queue: Queue, worker: str, *, seconds: float) -> LeaderLease:
    """Take the leader lease for so many seconds if it is free, or extend one's own; return the resulting lease.

    Raises:
        StudyNotFoundError: the study was deleted.
    """
    queue.lock(connection)
    held, now = read(connection, queue), _now(connection)
    if held.worker != worker and now < held.until:
        return held
    return _write(connection, queue, replace(held, worker=worker, until=now + seconds))


def extend(connection: Connection, queue: Queue, worker: str, *, shown: Counts | None, seconds: float) -> bool:
    """Extend the leader lease and record what this transaction shows; return False if another worker has it now.

    Args:
        connection: in a transaction.
        queue: of the study.
        worker: who writes.
        shown: trial counts by state if all trials are shown, else None.
        seconds: new duration of the lease; 0 releases it.

    Raises:
        StudyNotFoundError: the study was deleted.
    """
    queue.lock(connection)
    if read(connection, queue).worker != worker:
        return False
    until = _now(connection) + seconds if seconds else 0.0
    _write(connection, queue, LeaderLease(worker=worker, until=until, shown=shown))
    return True


def _now(connection: Connection) -> float:
    return float(connection.execute(select(database_now(connection.dialect.name))).scalar_one())


def _write(connection: Connection, queue: Queue, leader_lease: LeaderLease) -> LeaderLease:
    row = {"study_id": queue.study_id, "key": KEY, "value_json": json.dumps(asdict(leader_lease))}
    put(connection, study_system_attributes, [row], unique=("study_id", "key"))
    return leader_lease
