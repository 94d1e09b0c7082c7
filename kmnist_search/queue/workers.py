"""The registered workers of a study: host, process, device, start, and when they were last seen.

Each function is part of a transaction that the caller opened, and may be repeated.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, literal, select
from sqlalchemy.engine import Connection

from kmnist_search.database.tables import database_now, studies, upsert, workers
from kmnist_search.host.process import Owner

#: How long a worker that vanished stays in the list.
REMEMBERED_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class WorkerInfo:
    """Device, versions and scheduler's job of a worker, for display; `job` is None outside a job."""

    device: str
    versions: Mapping[str, str]
    job: str | None


@dataclass(frozen=True, kw_only=True)
class Registration:
    """The registration of a worker in the database.

    Attributes:
        worker_id: new for each worker.
        seconds: the worker sends a heartbeat at least this often.
    """

    worker_id: str
    study_id: int
    owner: Owner
    info: WorkerInfo
    seconds: float

    def heartbeat(self, connection: Connection, *, finished: int, age: float) -> None:
        """Record that the worker is alive, `age` seconds after its start and with `finished` trials."""
        now = database_now(connection.dialect.name)
        row: dict[str, ColumnElement[Any]] = {
            "worker_id": literal(self.worker_id),
            "study_id": studies.c.study_id,
            "owner": literal(json.dumps(asdict(self.owner))),
            "facts": literal(json.dumps(asdict(self.info))),
            "finished": literal(finished),
            "began_at": now - age,
            "seen_at": now,
            "seconds": literal(self.seconds),
        }
        # A deleted study gets no row here; claiming one of its trials raises the error.
        of_study = select(*row.values()).where(studies.c.study_id == self.study_id)
        connection.execute(
            upsert(connection.dialect.name, workers, tuple(row), ("worker_id",)).from_select(row, of_study)
        )

    def leave(self, connection: Connection) -> None:
        """Remove the worker from the list."""
        connection.execute(delete(workers).where(workers.c.worker_id == self.worker_id))


@dataclass(frozen=True, kw_only=True)
class RegisteredWorker:
    """A worker of a study as it was last seen.

    Attributes:
        finished: trials that it has finished since its start.
        age: seconds from its start until it was last seen.
        unseen: seconds since it was last seen.
        seconds: a worker unseen for longer is probably gone.
    """

    worker_id: str
    owner: Owner
    info: WorkerInfo
    finished: int
    age: float
    unseen: float
    seconds: float

    @property
    def is_gone(self) -> bool:
        return self.unseen > self.seconds or self.owner.is_dead()

    @property
    def trials_per_hour(self) -> float | None:
        """None before the first finished trial."""
        return 3600 * self.finished / self.age if self.finished and self.age > 0 else None


def registered_workers(connection: Connection, study_id: int | None = None) -> list[RegisteredWorker]:
    """Return the workers of a study, or of all studies, oldest first."""
    query = select(workers, database_now(connection.dialect.name).label("now")).order_by(workers.c.began_at)
    if study_id is not None:
        query = query.where(workers.c.study_id == study_id)
    return [
        RegisteredWorker(
            worker_id=row.worker_id,
            owner=Owner(**json.loads(row.owner)),
            info=WorkerInfo(**json.loads(row.facts)),
            finished=row.finished,
            age=row.seen_at - row.began_at,
            unseen=max(row.now - row.seen_at, 0.0),
            seconds=row.seconds,
        )
        for row in connection.execute(query)
    ]


def remove_gone_workers(connection: Connection, study_id: int) -> None:
    """Remove workers that are known to be dead, or were not seen for an hour."""
    gone = [
        each.worker_id
        for each in registered_workers(connection, study_id)
        if each.unseen > REMEMBERED_SECONDS or each.owner.is_dead()
    ]
    if gone:
        connection.execute(delete(workers).where(workers.c.worker_id.in_(gone)))
