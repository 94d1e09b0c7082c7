"""The queue that is the budget: filled exactly, claimed once, recovered from the dead, on a real database."""

import multiprocessing
import multiprocessing.queues
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import Trial, TrialState

from kmnist_search.queue import Counts, Owner, Queue
from kmnist_search.storage import open_storage


@pytest.fixture
def study(storage_url: str) -> optuna.Study:
    return optuna.create_study(study_name="s", storage=open_storage(storage_url, create=True).rdb)


@pytest.fixture
def queue(storage_url: str, study: optuna.Study) -> Queue:
    return _queue(storage_url, study)


def _queue(url: str, study: optuna.Study) -> Queue:
    return Queue(open_storage(url, create=False), study._study_id)


def test_filling_adds_what_is_missing_and_no_more(queue: Queue) -> None:
    assert queue.fill(5) == 5
    assert queue.fill(5) == 0
    assert queue.fill(3) == 0
    assert queue.fill(8) == 3
    assert queue.counts() == Counts(waiting=8)


def test_the_first_trials_take_the_enqueued_hyperparameters(queue: Queue, study: optuna.Study) -> None:
    queue.fill(3, [{"x": 1}, {"x": 2}])
    queue.fill(4, [{"x": 1}, {"x": 2}])
    drawn = []
    for _ in range(4):
        trial_id = queue.claim(Owner.this_process(), budget=4)
        assert trial_id is not None
        study.get_trials(deepcopy=False)
        drawn.append(Trial(study, trial_id).suggest_int("x", 1, 1000))
    assert drawn[:2] == [1, 2]
    assert not {1, 2} & set(drawn[2:])


def test_trials_are_claimed_in_order_each_once_and_then_none(queue: Queue, study: optuna.Study) -> None:
    queue.fill(3)
    claimed = [queue.claim(Owner.this_process(), budget=3) for _ in range(4)]
    assert claimed[3] is None
    numbers = [study._storage.get_trial(trial_id).number for trial_id in claimed[:3] if trial_id is not None]
    assert numbers == [0, 1, 2]
    assert queue.counts() == Counts(running=3)


def test_a_smaller_budget_leaves_the_rest_waiting(queue: Queue) -> None:
    queue.fill(5)
    assert queue.claim(Owner.this_process(), budget=1) is not None
    assert queue.claim(Owner.this_process(), budget=1) is None
    assert queue.counts() == Counts(running=1, waiting=4)


def test_a_trial_handed_back_keeps_its_hyperparameters_and_is_claimed_first(queue: Queue, study: optuna.Study) -> None:
    queue.fill(2)
    trial_id = queue.claim(Owner.this_process(), budget=2)
    assert trial_id is not None
    study.get_trials(deepcopy=False)
    drawn = Trial(study, trial_id).suggest_float("x", 0, 1)
    queue.hand_back(trial_id)
    assert queue.counts() == Counts(waiting=2)
    assert queue.claim(Owner.this_process(), budget=2) == trial_id
    assert Trial(study, trial_id).suggest_float("x", 0, 1) == drawn


def test_claiming_forgets_what_an_earlier_attempt_reported(queue: Queue, study: optuna.Study) -> None:
    study.pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    queue.fill(1)
    trial_id = queue.claim(Owner.this_process(), budget=1)
    assert trial_id is not None
    study.get_trials(deepcopy=False)
    trial = Trial(study, trial_id)
    for epoch in (1, 2, 3):
        trial.report(epoch / 10, epoch)
        trial.should_prune()
    assert "completed_rung_1" in study._storage.get_trial(trial_id).system_attrs
    queue.hand_back(trial_id)
    queue.claim(Owner.this_process(), budget=1)
    again = study._storage.get_trial(trial_id)
    assert again.intermediate_values == {}
    assert not [key for key in again.system_attrs if key.startswith("completed_rung_")]


def test_a_trial_of_a_dead_process_goes_back_to_the_queue(queue: Queue, dead_owner: Owner) -> None:
    queue.fill(1)
    queue.claim(dead_owner, budget=1)
    assert queue.recover() == [0]
    assert queue.counts() == Counts(waiting=1)
    assert queue.recover() == []


def test_a_trial_that_killed_three_processes_is_failed_with_the_reason(
    queue: Queue, study: optuna.Study, dead_owner: Owner
) -> None:
    queue.fill(2)
    for _ in range(3):
        queue.claim(dead_owner, budget=2)
        assert queue.recover() == [0]
    assert queue.counts() == Counts(fail=1, waiting=1)
    assert study.trials[0].user_attrs["reason"] == "its process died 3 times"
    assert study.trials[0].datetime_complete is not None


def test_trials_of_the_living_and_of_other_machines_are_left_alone(queue: Queue, dead_owner: Owner) -> None:
    queue.fill(2)
    queue.claim(Owner.this_process(), budget=2)
    queue.claim(replace(dead_owner, host="another machine"), budget=2)
    assert queue.recover() == []
    assert queue.counts() == Counts(running=2)


def test_a_later_process_with_the_same_pid_is_not_taken_for_the_owner() -> None:
    this = Owner.this_process()
    assert not this.is_dead()
    assert replace(this, born=this.born - 3600).is_dead()


def _claim_all(url: str, study_id: int, results: "multiprocessing.queues.Queue[int]") -> None:
    queue = Queue(open_storage(url, create=False), study_id)
    queue.fill(60)
    while (trial_id := queue.claim(Owner.this_process(), budget=60)) is not None:
        queue.storage.rdb.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.0])
        results.put(trial_id)
    results.put(-1)
    results.close()
    results.join_thread()
    os._exit(0)


def _drained(results: "multiprocessing.queues.Queue[int]", processes: int) -> Iterator[int]:
    while processes:
        trial_id = results.get(timeout=60)
        if trial_id == -1:
            processes -= 1
        else:
            yield trial_id


@pytest.mark.slow
def test_eight_processes_share_sixty_trials_exactly_and_none_is_claimed_twice(
    storage_url: str, study: optuna.Study, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.queues.Queue[int] = context.Queue()
    arguments = (storage_url, study._study_id, results)
    processes = [context.Process(target=_claim_all, args=arguments) for _ in range(8)]
    for process in processes:
        process.start()
    claimed = Counter(_drained(results, 8))
    for process in processes:
        process.join(60)
    assert len(claimed) == 60
    assert set(claimed.values()) == {1}
    assert _queue(storage_url, study).counts() == Counts(complete=60)
    assert sorted(trial.number for trial in study.trials) == list(range(60))
