"""The queue of a study: its waiting trials, which workers claim and end; see `leases.py` for the running ones.

Each method is part of a transaction that the caller opened. All methods are idempotent: the caller repeats the
transaction if the connection breaks, even if the database has committed it but could not confirm that.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.trial import TrialState
from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.engine import Connection

from kmnist_search.database.tables import (
    leases,
    params,
    put,
    studies,
    system_attributes,
    trials,
    values,
)
from kmnist_search.database.trial_writer import (
    PAUSED_KEY,
    REASON_KEY,
    Changes,
    forget_reports,
    set_state,
    set_user_attributes,
    utc_now,
    write_changes,
    write_values,
)
from kmnist_search.errors import StudyNotFoundError
from kmnist_search.host.process import Owner
from kmnist_search.optuna_internals import FIXED_PARAMS_KEY
from kmnist_search.queue.attempts import ATTEMPTS_KEY, PAUSED, begun, ended, is_loss, read_attempts
from kmnist_search.queue.leases import grant, renew


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The number of a study's trials in each state."""

    complete: int = 0
    pruned: int = 0
    fail: int = 0
    running: int = 0
    waiting: int = 0

    @property
    def finished(self) -> int:
        return self.complete + self.pruned + self.fail

    @property
    def unfinished(self) -> int:
        return self.running + self.waiting

    @property
    def total(self) -> int:
        return self.finished + self.running + self.waiting

    def with_at_least(self, *, running: int) -> "Counts":
        """Return the counts if at least `running` trials run by now; the additional ones were waiting before."""
        more = max(running - self.running, 0)
        return replace(self, running=self.running + more, waiting=max(self.waiting - more, 0))

    def claimable(self, budget: int | None) -> bool:
        """Return whether a trial within the budget waits; None means no budget."""
        return self.waiting > 0 and (budget is None or self.finished + self.running < budget)

    def reach(self, budget: int | None) -> bool:
        """Return whether the finished trials reach the budget; None means all trials."""
        return self.finished >= (self.total if budget is None else budget)


#: The system attribute of a trial that was added with what it shall train.
TRAINING_KEY = "training"

#: Begins the name of a system attribute of a trial whose hyperparameters were chosen by hand; a token follows.
ENQUEUED_KEY_PREFIX = "kmnist_search:enqueued:"

#: The system attribute of a trial that repeats a failed one: a list with the number of that one.
REPEATS_KEY = "kmnist_search:repeats"

#: Begins the name of a system attribute that tells that a trial resumed after pausing; the epochs follow.
RESUMED_KEY_PREFIX = "resumed:"


@dataclass(frozen=True, kw_only=True)
class Paused:
    """A paused trial, and the number of epochs after which it paused."""

    trial_id: int
    rung: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A trial to be added to a queue: its hyperparameters, and what it shall train, as JSON values."""

    params: Mapping[str, Any]
    training: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Added:
    """A trial that was added with what it shall train, and its present state."""

    trial_id: int
    number: int
    state: TrialState
    training: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A trial that belongs to this process as long as it renews the lease with `token`.

    Attributes:
        attempts: at this trial, oldest first; the last is this one.
    """

    trial_id: int
    number: int
    token: str
    attempts: Sequence[Mapping[str, Any]]

    @property
    def attempt(self) -> int:
        """This attempt's number, from 1."""
        return len(self.attempts)


def resumed(connection: Connection, study_id: int, *, since: int) -> dict[int, int]:
    """Return which trials resumed after pausing: the id of each by that of the attribute that tells so.

    Args:
        connection: in a transaction.
        study_id: the study.
        since: the lowest id of an attribute to look at.
    """
    table = system_attributes
    attribute_id = table.c.trial_system_attribute_id
    query = (
        select(attribute_id, table.c.trial_id)
        .join(trials, trials.c.trial_id == table.c.trial_id)
        .where(attribute_id >= since, table.c.key.startswith(RESUMED_KEY_PREFIX), trials.c.study_id == study_id)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


class Queue:
    """The trials of one study, as work for many workers."""

    def __init__(self, study_id: int) -> None:
        self.study_id = study_id

    def lock(self, connection: Connection) -> None:
        """Lock the queue against changes by others until the transaction ends.

        Raises:
            StudyNotFoundError: the study was deleted.
        """
        study = select(studies.c.study_id).where(studies.c.study_id == self.study_id)
        if connection.scalar(study.with_for_update(key_share=True)) is None:
            raise StudyNotFoundError("the study was deleted while it was worked on.")

    def counts(self, connection: Connection) -> Counts:
        """Return the number of trials in each state."""
        states = select(trials.c.state, func.count()).where(trials.c.study_id == self.study_id).group_by(trials.c.state)
        return Counts(**{state.name.lower(): count for state, count in connection.execute(states)})

    def fill(self, connection: Connection, budget: int, first: Sequence[Mapping[str, Any]] = ()) -> int:
        """Add waiting trials until the study has `budget` trials; return how many were added.

        The first trials of a study take the hyperparameters in `first`; the others are sampled when claimed.
        """
        if self.counts(connection).total >= budget:
            return 0
        self.lock(connection)
        present = self.counts(connection).total
        added = [first[number] if number < len(first) else {} for number in range(present, budget)]
        self._insert(connection, present, [{FIXED_PARAMS_KEY: dict(each)} for each in added])
        return len(added)

    def enqueue(
        self,
        connection: Connection,
        chosen: Sequence[Mapping[str, Any]],
        *,
        token: str,
        repeats: Sequence[int] = (),
    ) -> int:
        """Let the next trials take chosen hyperparameters; what a choice leaves open is sampled when it is claimed.

        Args:
            connection: in a transaction.
            chosen: the hyperparameters of each trial.
            token: new for each request; a repeated token changes nothing.
            repeats: numbers of the failed trials whose hyperparameters are chosen again, if they are. Then the study
                gets as many more trials; else it does only if too few wait.

        Returns:
            How many more trials the study has.
        """
        self.lock(connection)
        token_key = f"{ENQUEUED_KEY_PREFIX}{token}"
        of_study = trials.c.study_id == self.study_id
        its_trials = select(trials.c.trial_id).where(of_study)
        done_before = exists().where(system_attributes.c.key == token_key, system_attributes.c.trial_id.in_(its_trials))
        if connection.scalar(select(done_before)):
            return 0
        fixed = (system_attributes.c.trial_id == trials.c.trial_id) & (system_attributes.c.key == FIXED_PARAMS_KEY)
        tried = params.c.trial_id == trials.c.trial_id
        free = (
            select(trials.c.trial_id)
            .where(of_study, trials.c.state == TrialState.WAITING, ~exists().where(fixed), ~exists().where(tried))
            .order_by(trials.c.trial_id)
            .limit(len(chosen))
            .with_for_update(skip_locked=True, of=trials)
        )
        taken = connection.scalars(free).all()
        marked = [{FIXED_PARAMS_KEY: dict(each), token_key: True} for each in chosen]
        for attributes, number in zip(marked, repeats, strict=False):
            attributes[REPEATS_KEY] = [number]
        rows = [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
            for trial_id, attributes in zip(taken, marked, strict=False)
            for key, value in attributes.items()
        ]
        put(connection, system_attributes, rows, unique=("trial_id", "key"))
        more = len(chosen) if repeats else len(chosen) - len(taken)
        left = [*marked[len(taken) :], *[{} for _ in range(more)]][:more]
        self._insert(connection, self.counts(connection).total, left)
        return more

    def repeated(self, connection: Connection) -> set[int]:
        """Return the numbers of the failed trials whose hyperparameters were chosen again."""
        table = system_attributes
        query = (
            select(table.c.value_json)
            .join(trials, trials.c.trial_id == table.c.trial_id)
            .where(trials.c.study_id == self.study_id, table.c.key == REPEATS_KEY)
        )
        return {number for text in connection.scalars(query) for number in json.loads(text)}

    def add(self, connection: Connection, entries: Sequence[Entry]) -> int:
        """Add a waiting trial for each of the trainings that no trial has; failed trials do not count.

        Returns:
            The number of trials that the study has then.
        """
        self.lock(connection)
        present = [each.training for each in self.added(connection) if each.state != TrialState.FAIL]
        missing = [entry for entry in entries if entry.training not in present]
        total = self.counts(connection).total
        attributes = [{FIXED_PARAMS_KEY: dict(entry.params), TRAINING_KEY: dict(entry.training)} for entry in missing]
        self._insert(connection, total, attributes)
        return total + len(missing)

    def added(self, connection: Connection) -> list[Added]:
        """Return the trials that were added with what they shall train, by number."""
        key = (system_attributes.c.trial_id == trials.c.trial_id) & (system_attributes.c.key == TRAINING_KEY)
        columns = trials.c.trial_id, trials.c.number, trials.c.state, system_attributes.c.value_json
        found = select(*columns).join(system_attributes, key).where(trials.c.study_id == self.study_id)
        return [
            Added(trial_id=row.trial_id, number=row.number, state=row.state, training=json.loads(row.value_json))
            for row in connection.execute(found.order_by(trials.c.number))
        ]

    def disown(self, connection: Connection, number: int, reason: str) -> None:
        """Let a finished trial count as failed, so that its training can be added again."""
        self.lock(connection)
        its_id = select(trials.c.trial_id).where(trials.c.study_id == self.study_id, trials.c.number == number)
        trial_id = connection.execute(its_id).scalar_one()
        set_user_attributes(connection, trial_id, {REASON_KEY: reason})
        set_state(connection, trial_id, TrialState.FAIL)

    def _insert(self, connection: Connection, begin: int, added: Sequence[Mapping[str, Any]]) -> None:
        """Insert waiting trials, numbered from `begin`, with those of their system attributes that are not empty."""
        if not added:
            return
        waiting = {"study_id": self.study_id, "state": TrialState.WAITING}
        rows = [{**waiting, "number": number} for number in range(begin, begin + len(added))]
        new = connection.execute(insert(trials).returning(trials.c.number, trials.c.trial_id), rows).all()
        attributes = [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
            for number, trial_id in new
            for key, value in added[number - begin].items()
            if value
        ]
        put(connection, system_attributes, attributes, unique=("trial_id", "key"))

    def twins(self, connection: Connection, claim: Claim) -> list[int]:
        """Return the ids of waiting trials that train what a claimed one trains, but with another seed and split.

        They have not been tried before.
        """
        added = {each.trial_id: each for each in self.added(connection)}
        mine = _without_seeds(added.pop(claim.trial_id).training)
        waiting = [each for each in added.values() if each.state == TrialState.WAITING]
        same = [each.trial_id for each in waiting if _without_seeds(each.training) == mine]
        return [trial_id for trial_id in same if not read_attempts(connection, trial_id)]

    def claim(
        self,
        connection: Connection,
        owner: Owner,
        *,
        token: str,
        lease_seconds: float,
        budget: int | None,
        only: Collection[int] | None = None,
        paused: Paused | None = None,
    ) -> Claim | None:
        """Claim a paused trial or else the first waiting one for `owner`, and delete the reports of earlier attempts.

        The claim adds an attempt to the trial, see `attempts.py`.

        Args:
            connection: in a transaction.
            owner: the process that will run it.
            token: new for each claim; a repeated token returns the trial claimed with it.
            lease_seconds: the trial goes back to the queue if the lease is not renewed for this long.
            budget: no trial is claimed if this many are finished or running; None means no limit.
            only: ids of the trials that may be claimed; None means all.
            paused: is claimed if it is still paused there. It counts as finished, so no budget keeps it from that.

        Raises:
            StudyNotFoundError: the study was deleted.
        """
        done_before = connection.scalar(select(leases.c.trial_id).where(leases.c.token == token))
        if done_before is not None:
            number = connection.scalars(select(trials.c.number).where(trials.c.trial_id == done_before)).one()
            attempts = read_attempts(connection, done_before)
            return Claim(trial_id=done_before, number=number, token=token, attempts=attempts)
        if paused is not None and (number := _reopen(connection, paused)) is not None:
            return self._claimed(connection, (paused.trial_id, number), owner, token, lease_seconds)
        counts = self.counts(connection)
        leaves_some = budget is not None and counts.total > budget
        if leaves_some:  # nobody else may claim while the trials are counted
            self.lock(connection)
            counts = self.counts(connection)
        if not counts.total:
            self.lock(connection)  # which raises an error if the study was deleted
        if not counts.claimable(budget):
            return None
        taken = self._take_first(connection, below=None if leaves_some else budget, only=only)
        return None if taken is None else self._claimed(connection, taken, owner, token, lease_seconds)

    def _claimed(
        self, connection: Connection, taken: tuple[int, int], owner: Owner, token: str, lease_seconds: float
    ) -> Claim:
        """Return the claim on a trial, given by id and number, that runs by now."""
        trial_id, number = taken
        earlier = read_attempts(connection, trial_id)
        if earlier:
            forget_reports(connection, trial_id)
        attempts = [*earlier, begun(owner, token)]
        set_user_attributes(connection, trial_id, {ATTEMPTS_KEY: attempts})
        grant(connection, trial_id, owner, token=token, seconds=lease_seconds)
        return Claim(trial_id=trial_id, number=number, token=token, attempts=attempts)

    def finish(self, connection: Connection, claim: Claim, changes: Changes, *, epochs: int) -> bool:
        """Write the last changes of a trial and end it with `changes.ending`; return False if it was lost."""
        assert changes.ending is not None
        how = PAUSED if PAUSED_KEY in changes.system_attributes else changes.ending[0].name.lower()
        return self._end(connection, claim, changes, how, epochs)

    def hand_back(self, connection: Connection, claim: Claim, changes: Changes, *, epochs: int, reason: str) -> bool:
        """Put a running trial back into the queue, with its hyperparameters; return False if it was lost."""
        return self._end(connection, claim, changes, f"handed back: {reason}", epochs)

    def _end(self, connection: Connection, claim: Claim, changes: Changes, how: str, epochs: int) -> bool:
        """End the attempt; the trial ends with `changes.ending`, or waits again."""
        if not renew(connection, [claim.token]):
            # Perhaps this process ended the attempt earlier, and only missed the confirmation.
            attempts = read_attempts(connection, claim.trial_id)
            return any(each["token"] == claim.token and "how" in each and not is_loss(each) for each in attempts)
        state, results = changes.ending or (TrialState.WAITING, ())
        over = {ATTEMPTS_KEY: ended(claim.attempts, how, epochs)}
        write_changes(connection, claim.trial_id, replace(changes, user_attributes={**changes.user_attributes, **over}))
        write_values(connection, claim.trial_id, results)
        set_state(connection, claim.trial_id, state)
        connection.execute(delete(leases).where(leases.c.token == claim.token))
        return True

    def _take_first(
        self, connection: Connection, *, below: int | None, only: Collection[int] | None
    ) -> tuple[int, int] | None:
        """Set the first waiting trial to running; return its id and number.

        The single statement skips rows that others are claiming, so that no worker waits for another, even with 200
        workers on a busy server.
        """
        first = select(trials.c.trial_id).where(
            trials.c.study_id == self.study_id, trials.c.state == TrialState.WAITING
        )
        if below is not None:  # trials added since the count belong to a larger budget
            first = first.where(trials.c.number < below)
        if only is not None:
            first = first.where(trials.c.trial_id.in_(only))
        first = first.order_by(trials.c.trial_id).limit(1).with_for_update(skip_locked=True)
        taking = (
            update(trials)
            .where(trials.c.trial_id == first.scalar_subquery())
            .values(state=TrialState.RUNNING, datetime_start=utc_now())
            .returning(trials.c.trial_id, trials.c.number)
        )
        taken = connection.execute(taking).one_or_none()
        return None if taken is None else (taken.trial_id, taken.number)


def _reopen(connection: Connection, paused: Paused) -> int | None:
    """Set a paused trial to running; return its number, or None if it is not paused there any more.

    Other workers have read it as finished; the attribute that is added tells them to read it again.
    """
    table = system_attributes
    mark = (table.c.trial_id == paused.trial_id) & (table.c.key == PAUSED_KEY)
    taking = (
        update(trials)
        .where(trials.c.trial_id == paused.trial_id, trials.c.state == TrialState.PRUNED)
        .where(exists().where(mark, table.c.value_json == json.dumps(paused.rung)))
        .values(state=TrialState.RUNNING, datetime_start=utc_now(), datetime_complete=None)
        .returning(trials.c.number)
    )
    number: int | None = connection.scalar(taking)
    if number is not None:
        connection.execute(delete(values).where(values.c.trial_id == paused.trial_id))
        told = {"trial_id": paused.trial_id, "key": f"{RESUMED_KEY_PREFIX}{paused.rung}", "value_json": "true"}
        put(connection, table, [told], unique=("trial_id", "key"))
    return number


def _without_seeds(training: Mapping[str, Any]) -> dict[str, Any]:
    data = {key: value for key, value in training["data"].items() if key != "split_seed"}
    return {**training, "data": data, "seed": None}
