"""The attempts at a trial, as its attribute "attempts" holds them.

An attempt has its owner's host, pid and birth, the token of its lease, and its start; once it has ended, also when,
how, and after which epoch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection

from kmnist_search.database.tables import user_attributes
from kmnist_search.host.process import Owner

ATTEMPTS_KEY = "attempts"

#: How an attempt ended if its owner is gone.
LEASE_RAN_OUT = "its lease ran out"
PROCESS_DIED = "its process died"
#: How it ended if others were ahead of the trial at a rung, see `study/halving.py`.
PAUSED = "paused"


def read_attempts(connection: Connection, trial_id: int) -> list[dict[str, Any]]:
    """Return the attempts at a trial, oldest first."""
    table = user_attributes
    text = connection.scalar(
        select(table.c.value_json).where(table.c.trial_id == trial_id, table.c.key == ATTEMPTS_KEY)
    )
    return json.loads(text) if text else []


def begun(owner: Owner, token: str) -> dict[str, Any]:
    """Return an attempt that begins now."""
    return {"token": token, **asdict(owner), "began_at": datetime.now(UTC).isoformat()}


def ended(attempts: Sequence[Mapping[str, Any]], how: str, epochs: int) -> list[dict[str, Any]]:
    """Return the attempts with the last one ended now."""
    *earlier, last = attempts
    return [*map(dict, earlier), {**last, "ended_at": datetime.now(UTC).isoformat(), "how": how, "epochs": epochs}]


def is_loss(attempt: Mapping[str, Any]) -> bool:
    """Return whether an attempt ended because its owner was gone."""
    # An attempt copied while it ran has no end.
    return str(attempt.get("how", "")).startswith((LEASE_RAN_OUT, PROCESS_DIED))
