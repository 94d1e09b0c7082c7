"""A worker that trains three trials at once: the result of each, and what happens to the others."""

import gc
import itertools
import os
import signal
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

from kmnist_search.database.retry import Retry
from kmnist_search.engine.memory_budget import MemoryBudget
from kmnist_search.engine.training import Training
from kmnist_search.errors import DatabaseAwayError, DeviceLostError, TrialsKeepFailingError
from kmnist_search.host.signals import StopSignals
from kmnist_search.run.options import RunOptions
from kmnist_search.run.search import Search
from kmnist_search.run.submission import prepare
from kmnist_search.study_file.parser import load
from kmnist_search.worker.checkpoints import Checkpoints
from kmnist_search.worker.database_thread import DatabaseThread
from kmnist_search.worker.events import EpochDone, Event, TrialEnded, TrialStarted
from kmnist_search.worker.stop import Limits
from kmnist_search.worker.worker import Worker

AT_ONCE = 3

Prepare = Callable[..., Search]


@pytest.fixture
def prepared(tiny_study: Path, storage_url: str, tmp_path: Path) -> Prepare:
    def make(*overrides: str, trials: int = 7, trial_runs: int = AT_ONCE, target: float | None = None) -> Search:
        options = RunOptions(
            storage_url=storage_url, trials=trials, data_dir=tmp_path, device="cpu", limits=Limits(target=target)
        )
        search = prepare(load(tiny_study, overrides=overrides), options)
        return replace(search, options=replace(search.options, per_gpu=trial_runs))

    return make


def _work(search: Search, seconds: float | None = None) -> tuple[Worker, list[Event]]:
    worker, events = search.for_at_most(seconds).work(StopSignals())
    return worker, list(events)


def _most_at_once(events: list[Event]) -> int:
    running, most = 0, 0
    for event in events:
        running += isinstance(event, TrialStarted) - isinstance(event, TrialEnded)
        most = max(most, running)
    return most


def _endings(events: list[Event]) -> list[TrialEnded]:
    return [event for event in events if isinstance(event, TrialEnded)]


def _how(search: Search, number: int) -> str:
    return str(search.study.optuna.trials[number].user_attrs["attempts"][-1]["how"])


def test_three_trials_at_once_end_with_exactly_the_budget_and_alternate(prepared: Prepare) -> None:
    search = prepared("study.pruner=none")
    worker, events = _work(search)
    assert worker.stopped_by == "budget"
    assert _most_at_once(events) == AT_ONCE
    epochs = [event.number for event in events if isinstance(event, EpochDone)]
    assert len(epochs) == 7 * 4
    assert sum(one != other for one, other in itertools.pairwise(epochs)) > 7 * 2
    counts = search.study.counts()
    assert (counts.complete, counts.running, counts.waiting) == (7, 0, 0)
    assert list(search.study.checkpoint_dir.glob("*")) == []


def test_a_smaller_budget_leaves_the_rest_waiting(prepared: Prepare) -> None:
    prepared(trials=7)
    search = prepared(trials=4)
    worker, _ = _work(search)
    assert worker.stopped_by == "budget"
    counts = search.study.counts()
    assert (counts.finished, counts.waiting) == (4, 3)


def test_each_trial_has_the_same_result_as_alone(prepared: Prepare) -> None:
    settings = ("study.sampler=random", "study.pruner=none", "fixed.dropout=0.1", "fixed.shift=1.0", "train.epochs=3")
    alone = prepared("study.name=alone", *settings, trial_runs=1)
    beside = prepared("study.name=beside", *settings)
    _work(alone)
    _, events = _work(beside)
    assert _most_at_once(events) == AT_ONCE

    def facts(trial: FrozenTrial) -> Any:
        curves = {key: value for key, value in trial.user_attrs.items() if key.endswith("_curve")}
        return trial.params, trial.values, trial.intermediate_values, curves, trial.user_attrs["seed"]

    assert [facts(trial) for trial in beside.study.optuna.trials] == [
        facts(trial) for trial in alone.study.optuna.trials
    ]


def test_trials_are_pruned_beside_those_that_continue(prepared: Prepare) -> None:
    search = prepared("train.epochs=8", trials=12)
    _, events = _work(search)
    outcomes = {ended.outcome for ended in _endings(events)}
    assert outcomes == {"complete", "pruned"}
    for trial in search.study.optuna.trials:
        assert sorted(trial.intermediate_values) == list(range(1, len(trial.intermediate_values) + 1))
        if trial.state == TrialState.PRUNED:
            assert trial.user_attrs["reason"] == f"by the pruner after epoch {len(trial.intermediate_values)}"


def test_a_trial_is_proposed_knowing_those_that_run_beside_it(
    prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = prepared(trials=6)
    known: list[list[bool]] = []
    suggest = type(search.file).suggest

    def noted(file: Any, trial: Any, given: Any) -> Any:
        others = trial.study.get_trials(states=(TrialState.RUNNING,))
        known.append([bool(other.params) for other in others if other.number != trial.number])
        return suggest(file, trial, given)

    monkeypatch.setattr(type(search.file), "suggest", noted)
    _work(search)
    assert [len(others) for others in known[:3]] == [0, 1, 2]
    assert all(all(others) for others in known)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_hands_all_trials_back_with_checkpoints_and_the_next_run_resumes(
    prepared: Prepare, number: signal.Signals
) -> None:
    search = prepared("train.epochs=2000", "study.pruner=none")
    with StopSignals() as signals:
        worker, events = search.work(signals)
        drawn = []
        for event in events:
            drawn.append(event)
            if isinstance(event, EpochDone) and event.number == AT_ONCE - 1 and event.epoch.number == 2:
                os.kill(os.getpid(), number)
    assert worker.stopped_by == "signal"
    ended = _endings(drawn)
    assert sorted(event.number for event in ended) == [0, 1, 2]
    for event in ended:
        assert event.outcome == "handed back"
        assert event.reason.startswith("with a checkpoint at step ")
        assert _how(search, event.number) == f"handed back: {number.name}"
    assert (search.study.counts().running, search.study.counts().waiting) == (0, 7)
    _, events = search.for_at_most(1.5).work(StopSignals())
    done = {event.number: event.epochs_done for event in events if isinstance(event, TrialStarted)}
    assert done == {event.number: event.epochs for event in ended}


def test_a_target_that_one_trial_reaches_hands_the_others_back(prepared: Prepare) -> None:
    search = prepared("train.epochs=10", "study.pruner=none", target=0.01)
    worker, events = _work(search)
    assert worker.stopped_by == "target"
    outcomes = [ended.outcome for ended in _endings(events)]
    assert outcomes.count("complete") >= 1
    assert set(outcomes) <= {"complete", "handed back"}
    back = [ended.number for ended in _endings(events) if ended.outcome == "handed back"]
    assert all(_how(search, number) == "handed back: the target is reached" for number in back)
    assert search.study.counts().running == 0


def _break_trial(monkeypatch: pytest.MonkeyPatch, broken: Callable[[Training], bool], error: Exception) -> None:
    advance = Training.advance

    def advance_or_break(training: Training) -> bool:
        if broken(training):
            raise error
        return advance(training)

    monkeypatch.setattr(Training, "advance", advance_or_break)


def test_a_trial_that_breaks_harms_none_of_the_others(prepared: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    search = prepared("study.pruner=none")
    seed = search.study.training_seed(1)
    _break_trial(monkeypatch, lambda training: training.seed == seed and training.step == 12, RuntimeError("broken"))
    _, events = _work(search)
    outcomes = {ended.number: ended.outcome for ended in _endings(events)}
    assert outcomes == {number: "failed" if number == 1 else "complete" for number in range(7)}
    assert search.study.optuna.trials[1].user_attrs["reason"] == "RuntimeError: broken"
    assert [trial.state for trial in search.study.optuna.trials].count(TrialState.COMPLETE) == 6


def test_five_failures_in_a_row_hand_back_what_runs_beside_them(
    prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = prepared("train.epochs=2000", "study.pruner=none", trials=9)
    seed = search.study.training_seed(0)
    _break_trial(monkeypatch, lambda training: training.seed != seed, RuntimeError("broken"))
    with pytest.raises(TrialsKeepFailingError, match=r"5 trials in a row failed, the last \(number [45678]\) with"):
        _work(search)
    counts = search.study.counts()
    assert (counts.running, counts.complete) == (0, 0)
    assert counts.fail in (5, 6)  # one more may have been at work
    assert _how(search, 0) == "handed back: one trial after another failed"
    assert (search.study.checkpoint_dir / "0-1.pt").exists()


def test_out_of_memory_beside_others_hands_the_trial_back_and_lowers_the_limit(
    prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = prepared("study.pruner=none")
    at_work: set[int] = set()
    seed = search.study.training_seed(2)
    error = torch.OutOfMemoryError("CUDA out of memory.")
    _break_trial(monkeypatch, lambda training: training.seed == seed and len(at_work) > 1, error)
    worker, events = search.work(StopSignals())
    drawn = []
    for event in events:
        drawn.append(event)
        if isinstance(event, TrialStarted):
            at_work.add(event.number)
        elif isinstance(event, TrialEnded):
            at_work.remove(event.number)
    ended = _endings(drawn)
    assert [event.outcome for event in ended if event.number == 2] == ["handed back", "handed back", "complete"]
    assert all(event.outcome == "complete" for event in ended if event.number != 2)
    assert worker.concurrency.limit == 1
    assert search.study.counts().complete == 7
    attempts = search.study.optuna.trials[2].user_attrs["attempts"]
    assert [attempt["how"] for attempt in attempts] == [
        *["handed back: out of memory beside other trials"] * 2,
        "complete",
    ]


def test_a_trial_that_runs_out_of_memory_alone_fails(prepared: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    search = prepared("study.pruner=none", trials=4, trial_runs=2)
    seed = search.study.training_seed(0)
    error = torch.OutOfMemoryError("CUDA out of memory.")
    _break_trial(monkeypatch, lambda training: training.seed == seed and training.step == 12, error)
    _, events = _work(search)
    outcomes = [event.outcome for event in _endings(events) if event.number == 0]
    assert outcomes == ["handed back", "failed"]
    assert search.study.optuna.trials[0].user_attrs["reason"].startswith("out of memory: OutOfMemoryError: ")
    assert search.study.counts().complete == 3


def test_a_trial_waits_until_the_others_leave_enough_memory(prepared: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    search = prepared("study.sampler=random", "study.pruner=none", trials=8)
    sizes = {8: 10, 16: 60}  # of 100: large ones run alone or beside small ones
    monkeypatch.setattr(MemoryBudget, "estimate", lambda memory_budget, config, data: sizes[config.model.dim])
    monkeypatch.setattr(MemoryBudget, "capacity", lambda memory_budget: 100)
    monkeypatch.setattr("kmnist_search.engine.memory_budget.MachineMemory.usable", lambda memory, reserved: 100)
    _, events = _work(search)
    dims: dict[int, int] = {}
    for event in events:
        if isinstance(event, TrialStarted):
            dims[event.number] = event.params["dim"]
            assert sum(sizes[dim] for dim in dims.values()) <= 100
        elif isinstance(event, TrialEnded):
            del dims[event.number]
    assert search.study.counts().complete == 8
    assert _most_at_once(events) > 1


def test_a_trial_that_waits_for_memory_is_handed_back_when_the_run_stops(
    prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryBudget, "fits", lambda memory_budget, needed: not memory_budget._reserved)
    search = prepared("train.epochs=2000", "study.pruner=none", trials=4)
    _, events = _work(search, seconds=0.7)
    ended = {event.number: event for event in _endings(events)}
    assert sorted(ended) == [0, 1]  # no third was claimed while the second waited
    assert [event.outcome for event in ended.values()] == ["handed back"] * 2
    assert ended[1].reason == "before its training started"
    assert search.study.counts().waiting == 4


def test_a_database_that_is_gone_leaves_all_trials_with_checkpoints(
    prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = prepared("train.epochs=2000", "study.pruner=none")
    do = Retry.do
    is_away = False

    def do_or_give_up(retry: Retry, *arguments: Any) -> Any:
        if is_away:
            raise DatabaseAwayError("the database could not be used for 600 s: it is gone.")
        return do(retry, *arguments)

    monkeypatch.setattr(Retry, "do", do_or_give_up)
    monkeypatch.setattr("kmnist_search.worker.database_thread.FLUSH_SECONDS", 0.1)
    _, events = search.work(StopSignals())
    for event in events:
        if isinstance(event, EpochDone) and event.number == AT_ONCE - 1:
            is_away = True
            break
    with pytest.raises(DatabaseAwayError) as raised:
        list(events)
    message = str(raised.value)
    for number in range(AT_ONCE):
        assert f"Trial {number} was left with a checkpoint at step " in message
        assert (search.study.checkpoint_dir / f"{number}-1.pt").exists()
    assert ". A trial goes back to the queue when its lease runs out, 120 s after its last" in message


def test_a_trial_that_waits_for_the_database_delays_no_other(
    prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = prepared("study.pruner=none", "train.epochs=30", trials=3)
    finish = DatabaseThread.finish
    held: list[tuple[Any, Any, Future[bool]]] = []

    def held_up(database_thread: DatabaseThread, claim: Any, *, epochs: int) -> "Future[bool]":
        if claim.number != 0:
            return finish(database_thread, claim, epochs=epochs)
        held.append((claim, epochs, Future()))
        return held[0][2]

    monkeypatch.setattr(DatabaseThread, "finish", held_up)
    worker, events = search.work(StopSignals())
    ended = []
    for event in events:
        if isinstance(event, TrialEnded):
            ended.append(event.number)
            if len(ended) == 2:  # the others have ended meanwhile
                ((claim, epochs, future),) = held
                future.set_result(finish(worker.database_thread, claim, epochs=epochs).result(240))
    assert sorted(ended[:2]) == [1, 2]
    assert ended[2] == 0
    assert search.study.counts().complete == 3


def test_an_ended_trial_leaves_no_training_behind(prepared: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    search = prepared("train.epochs=1", "study.pruner=none", trials=12)
    alive: weakref.WeakSet[Training] = weakref.WeakSet()
    resume = Checkpoints.resume

    def noted(checkpoints: Checkpoints, training: Training) -> None:
        alive.add(training)
        resume(checkpoints, training)

    monkeypatch.setattr(Checkpoints, "resume", noted)
    _, events = search.work(StopSignals())
    gc.disable()  # nothing shall have to be collected
    try:
        left = [len(alive) for event in events if isinstance(event, TrialEnded)]
    finally:
        gc.enable()
    assert len(left) == 12
    assert max(left) < AT_ONCE
    assert left[-1] == 0


def test_a_lost_gpu_ends_the_worker_and_hands_back_what_runs_beside_the_trial_that_saw_it(
    prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = prepared("train.epochs=200", "study.pruner=none", trials=4)
    seed = search.study.training_seed(1)
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr("kmnist_search.worker.trial_run.CHECKPOINT_EVERY_SECONDS", 0.0)
    _break_trial(monkeypatch, lambda training: training.seed == seed and bool(training.history), error)
    with pytest.raises(DeviceLostError, match=r"^AcceleratorError: CUDA error: an illegal memory access"):
        _work(search)
    counts = search.study.counts()
    assert (counts.complete, counts.fail) == (0, 0)
    assert counts.running == 1  # until its lease is seen to belong to a dead process: that counts as a loss
    assert _how(search, 0) == "handed back: its worker lost the GPU"
    assert (search.study.checkpoint_dir / "1-1.pt").exists()  # its next attempt resumes from there


def test_an_error_that_comes_with_a_signal_hands_the_trial_back(
    prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = prepared("train.epochs=2000", "study.pruner=none", trials=2, trial_runs=1)
    with StopSignals() as signals:

        def interrupted(training: Training) -> bool:
            if training.step != 3:
                return False
            os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C, which a compiler in the same terminal gets, too
            return True

        _break_trial(monkeypatch, interrupted, RuntimeError("the assembler died"))
        _, events = search.work(signals)
        (ended,) = _endings(list(events))
    assert ended.outcome == "handed back"
    assert ended.reason == "without a checkpoint: RuntimeError: the assembler died"
    assert search.study.counts().fail == 0
