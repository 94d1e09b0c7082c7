"""The queue of waiting trials, which is the budget of a study, and the leases on those that run.

Knows nothing of samplers, spaces or training. Each method is one transaction of a connection that the caller opened
and may do again when it failed: doing it twice changes no more than doing it once, because a connection can break
after the database has committed and before it could say so.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb.models import TrialIntermediateValueModel, TrialValueModel
from optuna.trial import TrialState
from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.engine import Connection

from kmnist_search.errors import StudyNotFoundError
from kmnist_search.owner import Owner
from kmnist_search.tables import (
    database_now,
    database_started,
    leases,
    params,
    put,
    reports,
    studies,
    system_attributes,
    trials,
    upsert,
    user_attributes,
    values,
)

ATTEMPTS_KEY = "attempts"
REASON_KEY = "reason"
#: What optuna's successive halving and Hyperband note in a trial for each rung it reached.
RUNG_KEY_PREFIX = "completed_rung_"

#: How an attempt ended whose owner is gone.
LEASE_RAN_OUT = "its lease ran out"
PROCESS_DIED = "its process died"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many trials of a study are in which state."""

    complete: int = 0
    pruned: int = 0
    fail: int = 0
    running: int = 0
    waiting: int = 0

    @property
    def finished(self) -> int:
        return self.complete + self.pruned + self.fail

    @property
    def total(self) -> int:
        return self.finished + self.running + self.waiting


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A trial that is this process's to run as long as it renews the lease with `token`.

    Attributes:
        attempts: what is known of this attempt, the last, and of those before it; see `Queue.claim`.
    """

    trial_id: int
    number: int
    token: str
    attempts: Sequence[Mapping[str, Any]]

    @property
    def attempt(self) -> int:
        """This attempt's number, from 1."""
        return len(self.attempts)


@dataclass(kw_only=True)
class Changes:
    """What became known of a running trial and is not in the database yet.

    Attributes:
        params: value (as optuna stores it) and distribution by name.
        reports: value by step.
        ending: the state it ends in, and its values.
    """

    params: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)
    reports: dict[int, float] = field(default_factory=dict)
    user_attributes: dict[str, Any] = field(default_factory=dict)
    system_attributes: dict[str, Any] = field(default_factory=dict)
    ending: tuple[TrialState, Sequence[float]] | None = None

    def __bool__(self) -> bool:
        return any((self.params, self.reports, self.user_attributes, self.system_attributes, self.ending))


class Queue:
    """The trials of one study as work to be shared out."""

    def __init__(self, study_id: int) -> None:
        self.study_id = study_id

    def lock(self, connection: Connection) -> None:
        """Make others that change the queue wait for the end of this transaction.

        Raises:
            StudyNotFoundError: the study was deleted.
        """
        study = select(studies.c.study_id).where(studies.c.study_id == self.study_id)
        if connection.scalar(study.with_for_update(key_share=True)) is None:
            raise StudyNotFoundError("the study was deleted while it was worked on.")

    def counts(self, connection: Connection) -> Counts:
        """Return how many trials are in which state."""
        states = select(trials.c.state, func.count()).where(trials.c.study_id == self.study_id).group_by(trials.c.state)
        return Counts(**{state.name.lower(): count for state, count in connection.execute(states)})

    def fill(self, connection: Connection, budget: int, first: Sequence[Mapping[str, Any]] = ()) -> int:
        """Add waiting trials until the study has `budget` trials in all; return how many were added.

        The first trials of a study take the hyperparameters in `first`; the others are sampled when claimed.
        """
        if self.counts(connection).total >= budget:
            return 0
        self.lock(connection)
        present = self.counts(connection).total
        numbers = range(present, budget)
        if not numbers:
            return 0
        added = {"study_id": self.study_id, "state": TrialState.WAITING}
        connection.execute(insert(trials), [{**added, "number": number} for number in numbers])
        known = range(present, min(budget, len(first)))
        new_ids = select(trials.c.number, trials.c.trial_id).where(
            trials.c.study_id == self.study_id, trials.c.number.in_(known)
        )
        fixed = [
            {"trial_id": trial_id, "key": "fixed_params", "value_json": json.dumps(dict(first[number]))}
            for number, trial_id in connection.execute(new_ids)
        ]
        put(connection, system_attributes, fixed, unique=("trial_id", "key"))
        return len(numbers)

    def claim(
        self, connection: Connection, owner: Owner, *, token: str, lease_seconds: float, budget: int
    ) -> Claim | None:
        """Take the first waiting trial for `owner`; what an earlier attempt at it reported is forgotten.

        The trial's attribute "attempts" gets an entry: owner, token, when it began, and once it is over, when, how
        and after which epoch.

        Args:
            connection: in a transaction.
            owner: the process that will run it.
            token: new for each claim; given again, it returns the trial that was taken with it.
            lease_seconds: the trial goes back to the queue if the lease is not renewed for so long.
            budget: None is returned when so many trials of the study are finished or running.

        Raises:
            StudyNotFoundError: the study was deleted.
        """
        done_before = connection.scalar(select(leases.c.trial_id).where(leases.c.token == token))
        if done_before is not None:
            number = connection.scalars(select(trials.c.number).where(trials.c.trial_id == done_before)).one()
            attempts = self._attempts(connection, done_before)
            return Claim(trial_id=done_before, number=number, token=token, attempts=attempts)
        counts = self.counts(connection)
        if counts.total > budget:  # some must be left waiting, so nobody else may claim while these are counted
            self.lock(connection)
            counts = self.counts(connection)
        if not counts.total:
            self.lock(connection)  # which tells whether there is a study at all
        if counts.finished + counts.running >= budget or not counts.waiting:
            return None
        taken = self._take_first(connection, below=None if counts.total > budget else budget)
        if taken is None:
            return None
        trial_id, number = taken
        earlier = self._attempts(connection, trial_id)
        if earlier:
            _forget_reports(connection, trial_id)
        attempts = [*earlier, {"token": token, **asdict(owner), "began_at": datetime.now(UTC).isoformat()}]
        _set_user_attributes(connection, trial_id, {ATTEMPTS_KEY: attempts})
        lease = {"trial_id": trial_id, "token": token, "owner": json.dumps(asdict(owner)), "seconds": lease_seconds}
        new = upsert(connection.dialect.name, leases, (*lease, "renewed_at"), ("trial_id",))
        connection.execute(new.values(renewed_at=database_now(connection.dialect.name)), lease)
        return Claim(trial_id=trial_id, number=number, token=token, attempts=attempts)

    def renew(self, connection: Connection, tokens: Collection[str]) -> set[str]:
        """Renew leases; return the tokens of those that still hold. The others' trials have gone to someone else.

        Until the transaction ends nobody else can take these trials, so what is written in it is written by the owner.
        """
        # SQLite leaves a lease behind when optuna deletes its trial.
        runs = exists().where(trials.c.trial_id == leases.c.trial_id, trials.c.state == TrialState.RUNNING)
        now = database_now(connection.dialect.name)
        renewed = update(leases).where(leases.c.token.in_(tokens), runs).values(renewed_at=now)
        return set(connection.scalars(renewed.returning(leases.c.token)))

    def write(self, connection: Connection, claim: Claim, changes: Changes) -> None:
        """Write what became known of a trial whose lease was renewed in this transaction."""
        trial_id = claim.trial_id
        put(
            connection,
            params,
            [
                {
                    "trial_id": trial_id,
                    "param_name": name,
                    "param_value": value,
                    "distribution_json": distribution_to_json(distribution),
                }
                for name, (value, distribution) in changes.params.items()
            ],
            unique=("trial_id", "param_name"),
        )
        stored = TrialIntermediateValueModel.intermediate_value_to_stored_repr
        put(
            connection,
            reports,
            [
                {"trial_id": trial_id, "step": step, "intermediate_value": number, "intermediate_value_type": kind}
                for step, value in changes.reports.items()
                for number, kind in (stored(value),)
            ],
            unique=("trial_id", "step"),
        )
        _set_user_attributes(connection, trial_id, changes.user_attributes)
        put(
            connection,
            system_attributes,
            [
                {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
                for key, value in changes.system_attributes.items()
            ],
            unique=("trial_id", "key"),
        )

    def finish(self, connection: Connection, claim: Claim, changes: Changes, *, epochs: int) -> bool:
        """Write the rest of a trial and end it as `changes.ending` says; return False if it was no longer ours."""
        assert changes.ending is not None
        state, results = changes.ending
        if not self.renew(connection, [claim.token]):
            return self._ended_by(connection, claim)
        over = _over(claim.attempts, state.name.lower(), epochs)
        self.write(connection, claim, replace(changes, user_attributes={**changes.user_attributes, ATTEMPTS_KEY: over}))
        stored = TrialValueModel.value_to_stored_repr
        put(
            connection,
            values,
            [
                {"trial_id": claim.trial_id, "objective": objective, "value": number, "value_type": kind}
                for objective, value in enumerate(results)
                for number, kind in (stored(value),)
            ],
            unique=("trial_id", "objective"),
        )
        self._set_state(connection, claim.trial_id, state, datetime_complete=_utc_now())
        connection.execute(delete(leases).where(leases.c.token == claim.token))
        return True

    def hand_back(self, connection: Connection, claim: Claim, changes: Changes, *, epochs: int, reason: str) -> bool:
        """Put a running trial back among the waiting, with its hyperparameters; False if it was no longer ours."""
        if not self.renew(connection, [claim.token]):
            return self._ended_by(connection, claim)
        over = _over(claim.attempts, f"handed back: {reason}", epochs)
        self.write(connection, claim, replace(changes, user_attributes={**changes.user_attributes, ATTEMPTS_KEY: over}))
        self._set_state(connection, claim.trial_id, TrialState.WAITING)
        connection.execute(delete(leases).where(leases.c.token == claim.token))
        return True

    def recover(self, connection: Connection, *, max_retries: int) -> list[int]:
        """Put trials whose owner is gone back among the waiting, with their hyperparameters; return their numbers.

        Gone is who did not renew the lease in time, or whose process on this machine has died. A trial that lost its
        owner more than `max_retries` times is failed instead: most likely it is what kills them.
        """
        dialect = connection.dialect.name
        times = (database_now(dialect).label("now"), database_started(dialect).label("started"))
        columns = (leases.c.trial_id, leases.c.token, leases.c.owner, leases.c.renewed_at, leases.c.seconds)
        held = (
            select(*columns, trials.c.number, *times)
            .join(trials, trials.c.trial_id == leases.c.trial_id)
            .where(trials.c.study_id == self.study_id, trials.c.state == TrialState.RUNNING)
            .order_by(trials.c.number)
        )
        recovered = []
        for lease in connection.execute(held).all():
            # While the server is down nobody can renew, so each gets the whole time again.
            if lease.now > max(lease.renewed_at, lease.started) + lease.seconds:
                how = f"{LEASE_RAN_OUT} ({lease.seconds:g} s)"
            elif Owner(**json.loads(lease.owner)).is_dead():
                how = PROCESS_DIED
            else:
                continue
            as_seen = (leases.c.token == lease.token, leases.c.renewed_at == lease.renewed_at)
            deleted = connection.execute(delete(leases).where(*as_seen)).rowcount
            # else it was renewed, or someone was faster
            if deleted and self._requeue(connection, lease.trial_id, how, max_retries):
                recovered.append(int(lease.number))
        return recovered

    def _requeue(self, connection: Connection, trial_id: int, how: str, max_retries: int) -> bool:
        attempts = _over(self._attempts(connection, trial_id), how, _last_step(connection, trial_id))
        losses = sum(_is_loss(attempt) for attempt in attempts)
        _set_user_attributes(connection, trial_id, {ATTEMPTS_KEY: attempts})
        if losses <= max_retries:
            self._set_state(connection, trial_id, TrialState.WAITING)
            return True
        reason = f"lost {losses} times, the last time because {how}"
        _set_user_attributes(connection, trial_id, {REASON_KEY: reason})
        self._set_state(connection, trial_id, TrialState.FAIL, datetime_complete=_utc_now())
        return False

    def _take_first(self, connection: Connection, *, below: int | None) -> tuple[int, int] | None:
        """Set the first waiting trial running; return its id and number.

        One statement that steps over what others are taking: with 200 workers on a busy server nobody waits for
        somebody who waits for a processor.
        """
        first = select(trials.c.trial_id).where(
            trials.c.study_id == self.study_id, trials.c.state == TrialState.WAITING
        )
        if below is not None:  # if others have added trials since they were counted, those are of a larger budget
            first = first.where(trials.c.number < below)
        first = first.order_by(trials.c.trial_id).limit(1).with_for_update(skip_locked=True)
        taking = (
            update(trials)
            .where(trials.c.trial_id == first.scalar_subquery())
            .values(state=TrialState.RUNNING, datetime_start=_utc_now())
            .returning(trials.c.trial_id, trials.c.number)
        )
        taken = connection.execute(taking).one_or_none()
        return None if taken is None else (taken.trial_id, taken.number)

    def _attempts(self, connection: Connection, trial_id: int) -> list[dict[str, Any]]:
        table = user_attributes
        text = connection.scalar(
            select(table.c.value_json).where(table.c.trial_id == trial_id, table.c.key == ATTEMPTS_KEY)
        )
        return json.loads(text) if text else []

    def _set_state(self, connection: Connection, trial_id: int, state: TrialState, **times: datetime) -> None:
        connection.execute(update(trials).where(trials.c.trial_id == trial_id).values(state=state, **times))

    def _ended_by(self, connection: Connection, claim: Claim) -> bool:
        """Return whether the owner ended this attempt itself, and only the news of that did not get through."""
        attempts = self._attempts(connection, claim.trial_id)
        return any(
            attempt["token"] == claim.token and not _is_loss(attempt) for attempt in attempts if "how" in attempt
        )


def _is_loss(attempt: Mapping[str, Any]) -> bool:
    """Return whether an attempt ended because its owner was gone."""
    # A trial that was copied while it ran has an attempt that never ended here.
    return str(attempt.get("how", "")).startswith((LEASE_RAN_OUT, PROCESS_DIED))


def _over(attempts: Sequence[Mapping[str, Any]], how: str, epochs: int) -> list[dict[str, Any]]:
    """Return the attempts with the last one ended."""
    *earlier, last = attempts
    return [*map(dict, earlier), {**last, "ended_at": datetime.now(UTC).isoformat(), "how": how, "epochs": epochs}]


def _last_step(connection: Connection, trial_id: int) -> int:
    return connection.scalar(select(func.max(reports.c.step)).where(reports.c.trial_id == trial_id)) or 0


def _set_user_attributes(connection: Connection, trial_id: int, attributes: Mapping[str, Any]) -> None:
    rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]
    put(connection, user_attributes, rows, unique=("trial_id", "key"))


def _forget_reports(connection: Connection, trial_id: int) -> None:
    """Delete the reports of a trial, and the rungs a pruner noted for it."""
    table = system_attributes
    connection.execute(delete(reports).where(reports.c.trial_id == trial_id))
    connection.execute(delete(table).where(table.c.trial_id == trial_id, table.c.key.startswith(RUNG_KEY_PREFIX)))


def _utc_now() -> datetime:
    """Return the time as optuna's tables hold it."""
    return datetime.now(UTC).replace(tzinfo=None)
