"""Leases: a worker renews those on its trials; a trial whose lease has run out goes back to the queue.

Each function is part of a transaction that the caller opened, and is idempotent, as the methods of `Queue`.
"""

import json
from collections.abc import Collection
from dataclasses import asdict

from optuna.trial import TrialState
from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.engine import Connection

from kmnist_search.database.tables import database_now, database_started, leases, reports, trials, upsert
from kmnist_search.database.trial_writer import REASON_KEY, set_state, set_user_attributes
from kmnist_search.host.process import Owner
from kmnist_search.queue.attempts import ATTEMPTS_KEY, LEASE_RAN_OUT, PROCESS_DIED, ended, is_loss, read_attempts


def grant(connection: Connection, trial_id: int, owner: Owner, *, token: str, seconds: float) -> None:
    """Give `owner` the lease on a trial, which ends the lease of anybody else."""
    lease = {"trial_id": trial_id, "token": token, "owner": json.dumps(asdict(owner)), "seconds": seconds}
    new = upsert(connection.dialect.name, leases, (*lease, "renewed_at"), ("trial_id",))
    connection.execute(new.values(renewed_at=database_now(connection.dialect.name)), lease)


def renew(connection: Connection, tokens: Collection[str]) -> set[str]:
    """Renew leases; return the tokens of those that still hold. The trials of the others are lost.

    Nobody else can take these trials before the transaction ends, so only their owner writes them.
    """
    # SQLite leaves a lease behind when optuna deletes its trial.
    runs = exists().where(trials.c.trial_id == leases.c.trial_id, trials.c.state == TrialState.RUNNING)
    now = database_now(connection.dialect.name)
    renewed = update(leases).where(leases.c.token.in_(tokens), runs).values(renewed_at=now)
    return set(connection.scalars(renewed.returning(leases.c.token)))


def recover(connection: Connection, study_id: int, *, max_retries: int) -> list[int]:
    """Put trials whose owner is gone back into the queue, with their hyperparameters; return their numbers.

    An owner is gone if it did not renew the lease in time, or if its process on this machine has died. A trial that
    lost its owner more than `max_retries` times fails instead: it probably kills its owners.
    """
    dialect = connection.dialect.name
    times = (database_now(dialect).label("now"), database_started(dialect).label("started"))
    columns = (leases.c.trial_id, leases.c.token, leases.c.owner, leases.c.renewed_at, leases.c.seconds)
    held = (
        select(*columns, trials.c.number, *times)
        .join(trials, trials.c.trial_id == leases.c.trial_id)
        .where(trials.c.study_id == study_id, trials.c.state == TrialState.RUNNING)
        .order_by(trials.c.number)
    )
    recovered = []
    for lease in connection.execute(held).all():
        # Nobody can renew a lease while the server is down, so each gets the whole time again.
        if lease.now > max(lease.renewed_at, lease.started) + lease.seconds:
            how = f"{LEASE_RAN_OUT} ({lease.seconds:g} s)"
        elif Owner(**json.loads(lease.owner)).is_dead():
            how = PROCESS_DIED
        else:
            continue
        as_seen = (leases.c.token == lease.token, leases.c.renewed_at == lease.renewed_at)
        deleted = connection.execute(delete(leases).where(*as_seen)).rowcount
        # Otherwise the lease was renewed, or another worker was faster.
        if deleted and _requeue(connection, lease.trial_id, how, max_retries):
            recovered.append(int(lease.number))
    return recovered


def _requeue(connection: Connection, trial_id: int, how: str, max_retries: int) -> bool:
    attempts = ended(read_attempts(connection, trial_id), how, _last_step(connection, trial_id))
    losses = sum(is_loss(attempt) for attempt in attempts)
    set_user_attributes(connection, trial_id, {ATTEMPTS_KEY: attempts})
    if losses <= max_retries:
        set_state(connection, trial_id, TrialState.WAITING)
        return True
    reason = f"lost {losses} times, the last time because {how}"
    set_user_attributes(connection, trial_id, {REASON_KEY: reason})
    set_state(connection, trial_id, TrialState.FAIL)
    return False


def _last_step(connection: Connection, trial_id: int) -> int:
    return connection.scalar(select(func.max(reports.c.step)).where(reports.c.trial_id == trial_id)) or 0
