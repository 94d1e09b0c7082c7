"""The halt of a study: whether its workers shall wait or end, whichever machines they are on.

Each function is part of a transaction that the caller opened, and may be repeated.
"""

import json
from typing import Literal

from sqlalchemy import delete, select
from sqlalchemy.engine import Connection

from kmnist_search.database.tables import put, study_system_attributes

#: "paused": workers hand back their trials and wait; "stopped": they hand them back and end.
Halt = Literal["paused", "stopped"]

KEY = "kmnist_search:halt"


def read_halt(connection: Connection, study_id: int) -> Halt | None:
    """Return the halt of a study; None if it may be worked on."""
    table = study_system_attributes
    text = connection.scalar(select(table.c.value_json).where(table.c.study_id == study_id, table.c.key == KEY))
    found: Halt | None = None if text is None else json.loads(text)
    return found


def write_halt(connection: Connection, study_id: int, halt: Halt | None) -> None:
    """Let the workers of a study wait or end; None lets them work again."""
    table = study_system_attributes
    if halt is None:
        connection.execute(delete(table).where(table.c.study_id == study_id, table.c.key == KEY))
    else:
        row = {"study_id": study_id, "key": KEY, "value_json": json.dumps(halt)}
        put(connection, table, [row], unique=("study_id", "key"))
