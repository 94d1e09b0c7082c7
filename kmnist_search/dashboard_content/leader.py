"""The leader lease: one worker of a study at a time writes what the dashboard shows.

The leader lease is a row among the study's attributes, taken and given up in transactions that lock the study.
"""

import json
from dataclasses import asdict, dataclass, replace

from sqlalchemy import select
from sqlalchemy.engine import Connection

from kmnist_search.database.tables import database_now, put, study_system_attributes
from kmnist_search.queue.queue import Counts, Queue

KEY = "kmnist_search:publisher"


@dataclass(frozen=True, kw_only=True)
class LeaderLease:
    """The leader lease as the database knows it.

    Attributes:
        worker: who had it last; empty if nobody ever had.
        until: when it is anybody's, in seconds since 1970 by the database's clock.
        shown: how many trials were in which state when all of them were shown; None if they never were.
    """

    worker: str = ""
    until: float = 0.0
    shown: Counts | None = None


def look(connection: Connection, queue: Queue) -> LeaderLease:
    """Return the leader lease as it is now."""
    table = study_system_attributes
    row = (table.c.study_id == queue.study_id) & (table.c.key == KEY)
    text = connection.scalar(select(table.c.value_json).where(row))
    if text is None:
        return LeaderLease()
    known = json.loads(text)
    return LeaderLease(worker=known["worker"], until=known["until"], shown=known["shown"] and Counts(**known["shown"]))


def take(connection: Connection, queue: Queue, worker: str, *, seconds: float) -> LeaderLease:
    """Take the leader lease for so many seconds if nobody has it, or keep it; return whose it is then.

    Raises:
        StudyNotFoundError: the study was deleted.
    """
    queue.lock(connection)
    held, now = look(connection, queue), _now(connection)
    if held.worker != worker and now < held.until:
        return held
    return _write(connection, queue, replace(held, worker=worker, until=now + seconds))


def fulfil(connection: Connection, queue: Queue, worker: str, *, shown: Counts | None, seconds: float) -> bool:
    """Note what is written in this transaction, and keep the leader lease for a while; False if it is another's by now.

    Args:
        connection: in a transaction.
        queue: of the study.
        worker: who writes.
        shown: how many trials of the study are in which state, if all of them are shown then.
        seconds: to keep it for; 0 gives it up.

    Raises:
        StudyNotFoundError: the study was deleted.
    """
    queue.lock(connection)
    if look(connection, queue).worker != worker:
        return False
    until = _now(connection) + seconds if seconds else 0.0
    _write(connection, queue, LeaderLease(worker=worker, until=until, shown=shown))
    return True


def give_up(connection: Connection, queue: Queue, worker: str) -> None:
    """Leave the leader lease to whoever looks next, if this worker has it.

    Raises:
        StudyNotFoundError: the study was deleted.
    """
    queue.lock(connection)
    held = look(connection, queue)
    if held.worker == worker:
        _write(connection, queue, replace(held, until=0.0))


def _now(connection: Connection) -> float:
    return float(connection.execute(select(database_now(connection.dialect.name))).scalar_one())


def _write(connection: Connection, queue: Queue, leader_lease: LeaderLease) -> LeaderLease:
    row = {"study_id": queue.study_id, "key": KEY, "value_json": json.dumps(asdict(leader_lease))}
    put(connection, study_system_attributes, [row], unique=("study_id", "key"))
    return leader_lease
