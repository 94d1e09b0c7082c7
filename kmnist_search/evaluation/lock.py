"""A lock: only one process at a time, on whichever machine, tests the models of a study.

It is an attribute of the study with its holder and its expiry, taken and given up in transactions that lock the study.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, select
from sqlalchemy.engine import Connection

from kmnist_search.database.errors import when_it_answers
from kmnist_search.database.tables import database_now, put, study_system_attributes
from kmnist_search.host.process import Owner
from kmnist_search.study.study import SearchStudy

KEY = "kmnist_search:testing"
#: A process that vanished from another machine holds the lock for at most this long; tests and reports take a minute.
LEASE_SECONDS = 900.0
#: How often to look whether the lock is free.
LOOK_SECONDS = 1.0


@contextmanager
def alone(study: SearchStudy, *, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Wait until no other process tests the models of the study, and let none do so until this is left.

    Args:
        study: whose models are tested.
        waiting: called again and again while another process holds the lock.
    """
    token = uuid4().hex
    while not when_it_answers()(_taken, study, token):
        study.storage.disconnect()
        waiting()
        time.sleep(LOOK_SECONDS)
    try:
        yield
    finally:
        when_it_answers()(_give_up, study, token)


def _taken(study: SearchStudy, token: str) -> bool:
    """Take the lock if it is free; return whether this process has it now."""
    with study.storage.writing() as connection:
        study.queue.lock(connection)
        now = float(connection.execute(select(database_now(connection.dialect.name))).scalar_one())
        held = _held(connection, study)
        if held and held["token"] != token and now < held["until"] and not Owner(**held["owner"]).is_dead():
            return False
        value = {"token": token, "owner": asdict(Owner.this_process()), "until": now + LEASE_SECONDS}
        row = {"study_id": study.queue.study_id, "key": KEY, "value_json": json.dumps(value)}
        put(connection, study_system_attributes, [row], unique=("study_id", "key"))
        return True


def _give_up(study: SearchStudy, token: str) -> None:
    table = study_system_attributes
    with study.storage.writing() as connection:
        study.queue.lock(connection)
        held = _held(connection, study)
        if held and held["token"] == token:
            connection.execute(delete(table).where(table.c.study_id == study.queue.study_id, table.c.key == KEY))


def _held(connection: Connection, study: SearchStudy) -> dict[str, Any] | None:
    table = study_system_attributes
    row = (table.c.study_id == study.queue.study_id) & (table.c.key == KEY)
    text = connection.scalar(select(table.c.value_json).where(row))
    return None if text is None else dict(json.loads(text))
