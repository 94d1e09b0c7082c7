"""The queue that is the budget: filled exactly, claimed once, leased, recovered, on both kinds of database."""

import multiprocessing
import multiprocessing.queues
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from kmnist_search.database.storage import Storage, open_storage
from kmnist_search.database.trial_writer import Changes, write_changes
from kmnist_search.errors import StudyNotFoundError
from kmnist_search.host.process import Owner
from kmnist_search.queue import leases
from kmnist_search.queue.queue import Claim, Counts, Queue

HERE = Owner.this_process()
ELSEWHERE = replace(HERE, machine="another machine")


@pytest.fixture
def storage(any_storage_url: str) -> Iterator[Storage]:
    storage = open_storage(any_storage_url, create=True)
    yield storage
    storage.disconnect()


@pytest.fixture
def study(storage: Storage) -> optuna.Study:
    return optuna.create_study(study_name="s", storage=storage.rdb)


class Desk:
    """A queue whose methods run in a transaction of their own."""

    def __init__(self, storage: Storage, study_id: int) -> None:
        self.storage, self.queue = storage, Queue(study_id)
        self.tokens = count()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            with self.storage.writing() as connection:
                return getattr(self.queue, name)(connection, *arguments, **named)

        return call

    def renew(self, tokens: Collection[str]) -> set[str]:
        with self.storage.writing() as connection:
            return leases.renew(connection, tokens)

    def recover(self, *, max_retries: int) -> list[int]:
        with self.storage.writing() as connection:
            return leases.recover(connection, self.queue.study_id, max_retries=max_retries)

    def take(self, owner: Owner = HERE, *, budget: int = 100, seconds: float = 100.0) -> Claim | None:
        claim: Claim | None = self.claim(owner, token=f"t{next(self.tokens)}", lease_seconds=seconds, budget=budget)
        return claim

    def taken(self, owner: Owner = HERE, *, seconds: float = 100.0) -> Claim:
        claim = self.take(owner, seconds=seconds)
        assert claim is not None
        return claim


@pytest.fixture
def desk(storage: Storage, study: optuna.Study) -> Desk:
    return Desk(storage, study._study_id)


def _ending(value: float = 1.0) -> Changes:
    return Changes(ending=(TrialState.COMPLETE, [value]))


def test_trials_that_have_begun_since_they_were_counted_do_not_wait_any_more() -> None:
    counts = Counts(complete=1, running=1, waiting=3)
    assert counts.with_at_least(running=3) == Counts(complete=1, running=3, waiting=1)
    assert counts.with_at_least(running=3).total == counts.total
    assert counts.with_at_least(running=0) == counts


def test_filling_adds_what_is_missing_and_no_more(desk: Desk) -> None:
    assert desk.fill(5) == 5
    assert desk.fill(5) == 0
    assert desk.fill(3) == 0
    assert desk.fill(8) == 3
    assert desk.counts() == Counts(waiting=8)


def test_the_first_trials_take_the_enqueued_hyperparameters(desk: Desk, study: optuna.Study) -> None:
    desk.fill(1, [{"x": 1}, {"x": 2}])
    desk.fill(4, [{"x": 1}, {"x": 2}])
    fixed = [trial.system_attrs.get("fixed_params") for trial in study.trials]
    assert fixed == [{"x": 1}, {"x": 2}, None, None]


def test_trials_are_claimed_in_order_each_once_and_then_none(desk: Desk) -> None:
    desk.fill(3)
    assert [desk.taken().number for _ in range(3)] == [0, 1, 2]
    assert desk.take() is None
    assert desk.counts() == Counts(running=3)


def test_a_smaller_budget_leaves_the_rest_waiting(desk: Desk) -> None:
    desk.fill(5)
    assert desk.take(budget=1) is not None
    assert desk.take(budget=1) is None
    assert desk.counts() == Counts(running=1, waiting=4)


def test_claiming_again_with_the_same_token_gives_the_same_trial(desk: Desk) -> None:
    desk.fill(2)
    first = desk.claim(HERE, token="same", lease_seconds=100, budget=2)
    again = desk.claim(HERE, token="same", lease_seconds=100, budget=2)
    assert again == first
    assert desk.counts() == Counts(running=1, waiting=1)


def test_a_finished_trial_holds_all_that_was_said_of_it(desk: Desk, study: optuna.Study) -> None:
    desk.fill(1)
    claim = desk.taken()
    changes = Changes(
        params={"x": (0.1 + 0.2, FloatDistribution(0, 1))},
        reports={1: 0.5, 2: float("nan"), 3: float("-inf")},
        user_attributes={"note": "ä"},
        system_attributes={"s": [1]},
        ending=(TrialState.COMPLETE, [float("inf")]),
    )
    assert desk.finish(claim, changes, epochs=3)
    (trial,) = study.trials
    assert trial.state == TrialState.COMPLETE
    assert trial.params == {"x": 0.1 + 0.2}
    assert trial.values == [float("inf")]
    assert str(trial.intermediate_values) == "{1: 0.5, 2: nan, 3: -inf}"
    assert trial.system_attrs == {"s": [1]}
    assert trial.user_attrs["note"] == "ä"
    (attempt,) = trial.user_attrs["attempts"]
    assert (attempt["host"], attempt["pid"], attempt["how"], attempt["epochs"]) == (HERE.host, HERE.pid, "complete", 3)
    assert trial.datetime_start is not None
    assert trial.datetime_complete is not None
    assert trial.datetime_start <= trial.datetime_complete


def test_finishing_twice_is_finishing_once(desk: Desk, study: optuna.Study) -> None:
    desk.fill(1)
    claim = desk.taken()
    assert desk.finish(claim, _ending(), epochs=1)
    assert desk.finish(claim, _ending(), epochs=1)
    assert study.trials[0].values == [1.0]


def test_a_trial_handed_back_keeps_its_hyperparameters_and_is_claimed_first(desk: Desk, study: optuna.Study) -> None:
    desk.fill(2)
    changes = Changes(params={"x": (0.25, FloatDistribution(0, 1))}, reports={1: 0.5})
    claim = desk.taken()
    assert desk.hand_back(claim, changes, epochs=1, reason="SIGTERM")
    assert desk.counts() == Counts(waiting=2)
    again = desk.taken()
    assert (again.number, again.attempt) == (0, 2)
    trial = study.trials[0]
    assert trial.params == {"x": 0.25}
    assert [attempt.get("how") for attempt in trial.user_attrs["attempts"]] == ["handed back: SIGTERM", None]


def test_handing_back_twice_is_handing_back_once(desk: Desk) -> None:
    desk.fill(1)
    claim = desk.taken()
    assert desk.hand_back(claim, Changes(), epochs=1, reason="SIGTERM")
    assert desk.hand_back(claim, Changes(), epochs=1, reason="SIGTERM")
    successor = desk.taken()
    assert desk.hand_back(claim, Changes(), epochs=1, reason="SIGTERM")
    assert desk.renew([successor.token]) == {successor.token}


def test_claiming_forgets_what_an_earlier_attempt_reported(desk: Desk, study: optuna.Study) -> None:
    desk.fill(1)
    changes = Changes(reports={1: 0.5, 2: 0.6}, system_attributes={"completed_rung_0": 0.5, "kept": 1})
    desk.hand_back(desk.taken(), changes, epochs=2, reason="SIGTERM")
    assert study.trials[0].intermediate_values == {1: 0.5, 2: 0.6}
    desk.taken()
    trial = study.trials[0]
    assert trial.intermediate_values == {}
    assert trial.system_attrs == {"kept": 1}


def test_a_lease_that_is_renewed_holds(desk: Desk) -> None:
    desk.fill(1)
    claim = desk.taken(ELSEWHERE, seconds=1.0)
    for _ in range(3):
        time.sleep(0.6)
        assert desk.renew([claim.token]) == {claim.token}
    assert desk.recover(max_retries=3) == []


def test_a_lease_that_ran_out_sends_the_trial_back_with_its_history(
    desk: Desk, study: optuna.Study, storage: Storage
) -> None:
    desk.fill(1)
    claim = desk.taken(ELSEWHERE, seconds=0.2)
    with storage.writing() as connection:
        write_changes(connection, claim.trial_id, Changes(reports={1: 0.5, 2: 0.6}))
    time.sleep(0.3)
    assert desk.recover(max_retries=3) == [0]
    assert desk.recover(max_retries=3) == []
    assert desk.counts() == Counts(waiting=1)
    (attempt,) = study.trials[0].user_attrs["attempts"]
    assert (attempt["how"], attempt["epochs"]) == ("its lease ran out (0.2 s)", 2)


def test_who_lost_the_lease_can_neither_renew_nor_end_nor_hand_back(desk: Desk, study: optuna.Study) -> None:
    desk.fill(1)
    paused = desk.taken(ELSEWHERE, seconds=0.1)
    time.sleep(0.2)
    desk.recover(max_retries=3)
    assert desk.renew([paused.token]) == set()
    assert not desk.finish(paused, _ending(), epochs=1)
    assert not desk.hand_back(paused, Changes(reports={1: 0.1}), epochs=1, reason="SIGTERM")
    assert desk.counts() == Counts(waiting=1)
    successor = desk.taken()
    assert not desk.finish(paused, _ending(), epochs=1)
    assert not desk.hand_back(paused, Changes(), epochs=1, reason="SIGTERM")
    assert desk.renew([paused.token, successor.token]) == {successor.token}
    assert desk.finish(successor, _ending(2.0), epochs=1)
    assert not desk.finish(paused, _ending(), epochs=1)
    assert study.trials[0].values == [2.0]
    assert study.trials[0].intermediate_values == {}


def test_a_trial_of_a_dead_process_on_this_machine_goes_back_at_once(desk: Desk, dead_owner: Owner) -> None:
    desk.fill(1)
    desk.taken(dead_owner)
    assert desk.recover(max_retries=3) == [0]
    assert desk.counts() == Counts(waiting=1)


def test_a_trial_that_lost_too_many_workers_is_failed_with_the_reason(
    desk: Desk, study: optuna.Study, dead_owner: Owner
) -> None:
    desk.fill(2)
    for requeued in ([0], [0], []):
        assert desk.taken(dead_owner).number == 0
        assert desk.recover(max_retries=2) == requeued
    assert desk.counts() == Counts(fail=1, waiting=1)
    trial = study.trials[0]
    assert trial.user_attrs["reason"] == "lost 3 times, the last time because its process died"
    assert [attempt["how"] for attempt in trial.user_attrs["attempts"]] == ["its process died"] * 3
    assert trial.datetime_complete is not None


def test_being_handed_back_is_no_loss(desk: Desk, dead_owner: Owner) -> None:
    desk.fill(1)
    for _ in range(5):
        desk.hand_back(desk.taken(), Changes(), epochs=0, reason="SIGTERM")
    desk.taken(dead_owner)
    desk.recover(max_retries=1)
    assert desk.counts() == Counts(waiting=1)


def test_trials_of_the_living_and_of_other_machines_are_left_alone(desk: Desk, dead_owner: Owner) -> None:
    desk.fill(2)
    desk.taken()
    desk.taken(replace(dead_owner, machine="another machine"))
    assert desk.recover(max_retries=3) == []
    assert desk.counts() == Counts(running=2)


def test_a_study_deleted_under_its_workers_is_named_as_the_reason(
    desk: Desk, storage: Storage, study: optuna.Study
) -> None:
    desk.fill(2)
    claim = desk.taken()
    storage.rdb.delete_study(study._study_id)
    assert not desk.finish(claim, _ending(), epochs=1)
    with pytest.raises(StudyNotFoundError, match="deleted while it was worked on"):
        desk.taken()


def test_a_later_process_with_the_same_pid_is_not_taken_for_the_owner() -> None:
    assert not HERE.is_dead()
    assert replace(HERE, born=HERE.born - 3600).is_dead()


def _claim_all(url: str, study_id: int, number: int, results: "multiprocessing.queues.Queue[int]") -> None:
    desk = Desk(open_storage(url, create=False), study_id)
    desk.fill(200)
    while (claim := desk.claim(HERE, token=f"{number} {next(desk.tokens)}", lease_seconds=100, budget=200)) is not None:
        assert desk.finish(claim, _ending(), epochs=1)
        results.put(claim.number)
    results.put(-1)
    results.close()
    results.join_thread()
    os._exit(0)


def _drained(results: "multiprocessing.queues.Queue[int]", processes: int) -> Iterator[int]:
    while processes:
        number = results.get(timeout=400)
        if number == -1:
            processes -= 1
        else:
            yield number


@pytest.mark.slow
def test_32_processes_share_200_trials_exactly_and_none_is_claimed_twice(
    any_storage_url: str, storage: Storage, study: optuna.Study, desk: Desk
) -> None:
    storage.disconnect()
    context = multiprocessing.get_context("fork")
    results: multiprocessing.queues.Queue[int] = context.Queue()
    processes = [
        context.Process(target=_claim_all, args=(any_storage_url, study._study_id, number, results))
        for number in range(32)
    ]
    for process in processes:
        process.start()
    claimed = Counter(_drained(results, 32))
    for process in processes:
        process.join(240)
    assert claimed == Counter(range(200))
    assert desk.counts() == Counts(complete=200)
    assert [trial.number for trial in study.trials] == list(range(200))
    assert {len(trial.user_attrs["attempts"]) for trial in study.trials} == {1}
