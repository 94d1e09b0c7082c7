"""The traffic between a worker and its database: what is carried, what it costs, and what the cached storage shows."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from kmnist_search.database.storage import open_storage
from kmnist_search.database.tables import leases
from kmnist_search.database.trial_reader import read_trials
from kmnist_search.queue.leases import recover
from kmnist_search.queue.queue import Claim
from kmnist_search.queue.workers import WorkerInfo
from kmnist_search.study.opening import open_study
from kmnist_search.study.proposals import Proposals
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.parser import load
from kmnist_search.study_file.schema import StudyFile
from kmnist_search.worker import database_thread
from kmnist_search.worker.database_thread import DatabaseThread
from tests.support.postgres import PostgresServer

Start = Callable[..., "Desk"]


class Desk:
    """A worker's database thread and study on connections of its own, without trainings."""

    def __init__(self, url: str, file: StudyFile, lease_seconds: float) -> None:
        self.file = file
        self.study: SearchStudy = open_study(open_storage(url, create=True), file)
        self.proposals = Proposals(self.study, file)
        self.database_thread = DatabaseThread(
            self.study,
            self.proposals.cached_storage,
            lease_seconds=lease_seconds,
            max_retries=100,
            database_timeout=240,
            counts=self.study.counts(),
            info=WorkerInfo(device="CPU", versions={}, job=None),
        )
        self.study.storage.disconnect()

    def take(self) -> tuple[Claim, Trial] | None:
        claim = self.database_thread.claim(budget=1000).result(240)
        if claim is None:
            return None
        trial = self.proposals.trial(claim)
        self.file.suggest(trial)
        return claim, trial

    def taken(self) -> tuple[Claim, Trial]:
        taken = self.take()
        assert taken is not None
        return taken

    def end(self, claim: Claim, trial: Trial, value: float) -> bool:
        trial.study.tell(trial, value)
        return self.database_thread.finish(claim, epochs=4).result(240)

    def seen(self) -> list[FrozenTrial]:
        cached_storage = self.database_thread.cached_storage
        return cached_storage.get_all_trials(cached_storage.study_id)

    def stored(self) -> list[FrozenTrial]:
        with self.study.storage.reading() as connection:
            return read_trials(connection, self.study.queue.study_id)


@pytest.fixture
def start(any_storage_url: str, tiny_study: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(*overrides: str, lease_seconds: float = 3600, trials: int = 20) -> Desk:
            desk = Desk(any_storage_url, load(tiny_study, overrides=overrides), lease_seconds)
            desk.study.fill(trials)
            stack.enter_context(desk.database_thread)
            return desk

        yield begin


def _until(ready: Callable[[], bool], *, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _facts(trials: list[FrozenTrial]) -> list[object]:
    return [
        (
            trial.number,
            trial.state,
            trial.values,
            trial.params,
            trial.distributions,
            {key: value for key, value in trial.system_attrs.items() if not key.startswith("tpe:")},
        )
        for trial in trials
    ]


def _holds_lease(desk: Desk, claim: Claim) -> bool:
    with desk.study.storage.reading() as connection:
        return connection.execute(select(leases.c.token).where(leases.c.token == claim.token)).first() is not None


def test_the_cached_storage_shows_what_the_database_holds_whatever_happened_in_which_order(start: Start) -> None:
    chance = random.Random(1)
    desks = [start(trials=60) for _ in range(3)]
    held: list[list[tuple[Claim, Trial]]] = [[] for _ in desks]
    for _ in range(150):
        number = chance.randrange(3)
        desk, mine = desks[number], held[number]
        action = chance.random()
        if action < 0.5 and len(mine) < 3:
            if taken := desk.take():
                mine.append(taken)
        elif mine:
            claim, trial = mine.pop(chance.randrange(len(mine)))
            if action < 0.65:
                assert desk.database_thread.hand_back(claim, epochs=0, reason="test").result(240)
            elif action < 0.75:  # as if it had been paused for too long
                while _holds_lease(desk, claim):  # until no renewal comes between
                    with desk.study.storage.writing() as connection:
                        renewed = update(leases).where(leases.c.token == claim.token)
                        connection.execute(renewed.values(renewed_at=0.0, seconds=0.0))
                    desks[(number + 1) % 3].study.recover(100)
                assert not desk.end(claim, trial, 0.5)
            else:
                trial.report(chance.random(), 1)
                assert desk.end(claim, trial, chance.random())
    for desk, mine in zip(desks, held, strict=True):
        for claim, trial in mine:
            assert desk.end(claim, trial, 0.1)
    for desk in desks:
        desk.database_thread.refresh().result(240)
        assert _facts(desk.seen()) == _facts(desk.stored())
        assert [trial.intermediate_values for trial in desk.seen()] == [
            trial.intermediate_values for trial in desk.stored()
        ]
    assert len(desks[0].seen()) > 20


def test_samplers_see_the_trials_that_others_finished_and_those_they_run(start: Start) -> None:
    one, other = start(), start()
    ended, running = one.taken(), one.taken()
    one.end(*ended, 0.5)
    _until(lambda: bool(other.study.trials()[1].params))
    other.taken()
    seen = other.seen()
    assert [(trial.number, trial.state) for trial in seen] == [
        (0, TrialState.COMPLETE),
        (1, TrialState.RUNNING),
        (2, TrialState.RUNNING),
    ]
    assert seen[0].values == [0.5]
    assert seen[1].params == running[1].params


def test_pruners_see_what_others_report_while_a_trial_runs(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_thread, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(database_thread, "NEWS_SECONDS", 0.1)
    one, other = start(), start()
    _, mine = one.taken()
    other.taken()
    mine.report(0.5, 1)
    mine.should_prune()
    _until(lambda: "completed_rung_0" in other.seen()[0].system_attrs)
    assert other.seen()[0].system_attrs["completed_rung_0"] == 0.5


def test_a_reported_epoch_costs_at_most_three_statements(
    postgres: PostgresServer, tiny_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_thread, "FIRST_FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(database_thread, "FLUSH_SECONDS", 0.1)
    monkeypatch.setattr(database_thread, "NEWS_SECONDS", 0.2)
    url = postgres.new_database()
    epochs = 27
    overrides = [f"train.epochs={epochs}", "study.pruner={name = 'hyperband', reduction_factor = 2}"]
    desk = Desk(url, load(tiny_study, overrides=overrides), 100)
    desk.study.fill(1)
    desk.study.storage.disconnect()
    postgres.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET log_statement = 'all'")
    with desk.database_thread:
        claim, trial = desk.taken()
        _until(lambda: "INSERT INTO trial_params" in postgres.log)
        time.sleep(0.3)
        before = len(postgres.log)
        for epoch in range(1, epochs):  # so slow that each is written by itself
            trial.report(0.5 + epoch / 100, epoch)
            trial.should_prune()
            time.sleep(0.15)
        statements = [line for line in postgres.log[before:].splitlines() if " LOG:  " in line]
        assert desk.end(claim, trial, 0.9)
    written = [line for line in statements if "INSERT INTO trial_intermediate_values" in line]
    assert len(written) > 0.8 * epochs
    # Those that say BEGIN, COMMIT and SET take no work.
    worked = [line for line in statements if not line.endswith((": BEGIN", ": COMMIT")) and "SET LOCAL" not in line]
    assert len(worked) <= 3 * (epochs - 1), "\n".join(worked)


def test_a_report_waits_for_no_database(start: Start) -> None:
    desk = start("study.pruner=none")
    _, trial = desk.taken()
    with desk.study.storage.writing() as connection:  # nobody else can write now, in SQLite
        desk.study.queue.lock(connection)
        started = time.perf_counter()
        for epoch in range(1, 1001):
            trial.report(0.5, epoch)
            trial.should_prune()
        assert time.perf_counter() - started < 1.0
    _until(lambda: len(desk.study.optuna.trials[0].intermediate_values) == 1000)


def test_who_loses_a_lease_is_told_and_writes_nothing_more(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_thread, "FLUSH_SECONDS", 0.05)
    paused, other = start(), start()
    claim, trial = paused.taken()
    with other.study.storage.writing() as connection:
        connection.execute(update(leases).values(renewed_at=0.0, seconds=0.0))
        assert recover(connection, other.study.queue.study_id, max_retries=3) == [0]
    trial.report(0.1, 1)
    _until(lambda: paused.database_thread.has_lost(claim))
    paused.database_thread.abandon(claim)
    assert not paused.database_thread.has_lost(claim)
    successor = other.taken()
    assert successor[0].trial_id == claim.trial_id
    next_claim, _ = paused.taken()
    assert next_claim.number == 1
    assert other.study.optuna.trials[0].intermediate_values == {}
    assert [trial.number for trial in paused.seen()] == [0, 1]


def test_a_trial_lost_before_its_owner_looked_at_it_is_left_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused, other = start(), start()
    read_news = paused.database_thread._read_news
    pauses = iter([True, False])

    def read_news_after_a_pause(connection: Connection, *, complete_until: int | None = None) -> None:
        if next(pauses):
            with other.study.storage.writing() as writing:
                writing.execute(update(leases).values(renewed_at=0.0, seconds=0.0))
                assert recover(writing, other.study.queue.study_id, max_retries=3) == [0]
        read_news(connection, complete_until=complete_until)

    monkeypatch.setattr(paused.database_thread, "_read_news", read_news_after_a_pause)
    claim, trial = paused.taken()
    assert (claim.number, claim.attempt) == (0, 2)
    assert paused.end(claim, trial, 0.5)


def test_leases_are_renewed_without_any_report(start: Start) -> None:
    holder, other = start(lease_seconds=1.0), start()
    holder.taken()
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert other.study.recover(3) == []
        time.sleep(0.1)


def test_trials_that_are_claimed_again_and_again_put_off_no_lease_and_no_report(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_thread, "FLUSH_SECONDS", 0.3)
    desk, other = start(lease_seconds=2.0, trials=100), start()
    _, long_one = desk.taken()
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        desk.end(*desk.taken(), 0.5)
        long_one.report(0.5, len(long_one.study.trials))
        assert other.study.recover(3) == []
        time.sleep(0.05)
    assert len(desk.stored()[0].intermediate_values) == 0  # not read of running ones
    assert len(desk.study.optuna.trials[0].intermediate_values) > 1


def test_news_are_read_while_one_trial_has_just_noted_a_rung_and_another_has_not(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_thread, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(database_thread, "NEWS_SECONDS", 0.1)
    one, other = start(), start()
    rungs, other_trial = one.taken()[1], one.taken()[1]
    other.end(*other.taken(), 0.7)
    deadline = time.monotonic() + 240
    step = 0
    while not any(trial.state == TrialState.COMPLETE for trial in one.seen()):
        step += 1
        rungs.storage.set_trial_system_attr(rungs._trial_id, f"completed_rung_{step}", 0.5)
        other_trial.report(0.5, step)
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_a_worker_holds_no_connection_while_it_trains(
    postgres: PostgresServer, tiny_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_thread, "FLUSH_SECONDS", 0.5)
    url = postgres.new_database()
    desk = Desk(url, load(tiny_study), 100)
    desk.study.fill(2)
    desk.study.storage.disconnect()
    connections = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{url.rpartition('/')[2]}'"
    with desk.database_thread:
        _, trial = desk.taken()
        _until(lambda: postgres.execute(connections) == [(0,)])
        counts = []
        for epoch in range(1, 60):
            trial.report(0.5, epoch)
            counts += [count for (count,) in postgres.execute(connections)]
            time.sleep(0.05)
        assert counts.count(0) > 0.8 * len(counts)
    assert postgres.execute(connections) == [(0,)]


def test_a_trial_that_was_told_its_end_just_before_a_flush_still_ends(start: Start) -> None:
    desk = start(trials=1)
    claim, trial = desk.taken()
    trial.study.tell(trial, 0.5)
    desk.database_thread._submit(desk.database_thread._flush).result(240)
    assert desk.database_thread.finish(claim, epochs=4).result(240)
    assert [(stored.state, stored.values) for stored in desk.stored()] == [(TrialState.COMPLETE, [0.5])]
