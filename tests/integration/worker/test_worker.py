"""A worker on real trainings and a real database, in this process."""

import gc
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import FixedTrial, TrialState

from kmnist_search.config.cost import flops_per_image, num_parameters
from kmnist_search.engine.training import Training
from kmnist_search.errors import ConfigError, TrialsKeepFailingError
from kmnist_search.host.signals import StopSignals
from kmnist_search.run.options import RunOptions
from kmnist_search.run.search import Search
from kmnist_search.run.submission import prepare
from kmnist_search.study.patience import trials_since_best
from kmnist_search.study.status import status_of
from kmnist_search.study_file.parser import load
from kmnist_search.worker import trial_run
from kmnist_search.worker.checkpoints import Checkpoints
from kmnist_search.worker.events import EpochDone, Event, Stopping, TrialEnded, TrialStarted
from kmnist_search.worker.stop import Limits
from kmnist_search.worker.worker import Worker

Prepare = Callable[..., Search]


@pytest.fixture
def prepared(tiny_study: Path, storage_url: str, tmp_path: Path) -> Prepare:
    def make(*overrides: str, trials: int = 6, **limits: Any) -> Search:
        options = RunOptions(
            storage_url=storage_url, trials=trials, data_dir=tmp_path, device="cpu", limits=Limits(**limits)
        )
        return prepare(load(tiny_study, overrides=overrides), options)

    return make


def _work(search: Search, seconds: float | None = None) -> tuple[Worker, list[Event]]:
    """Work until the end, or until `seconds` after the first trial has started: however slow, there is one then."""
    worker, events = search.work(StopSignals())
    told = []
    for event in events:
        told.append(event)
        if seconds is not None and worker.stop.deadline is None and isinstance(event, TrialStarted):
            worker.stop.deadline = time.monotonic() + seconds
    return worker, told


def test_a_run_ends_with_exactly_its_budget_and_tells_each_step(prepared: Prepare) -> None:
    search = prepared()
    worker, events = _work(search)
    assert worker.stopped_by == "budget"
    assert [event.number for event in events if isinstance(event, TrialStarted)] == list(range(6))
    ended = [event for event in events if isinstance(event, TrialEnded)]
    assert {event.outcome for event in ended} <= {"complete", "pruned"}
    assert ended[0].outcome == "complete"
    assert len([event for event in events if isinstance(event, EpochDone)]) == sum(event.epochs for event in ended)
    counts = search.study.counts()
    assert (counts.finished, counts.running, counts.waiting) == (6, 0, 0)


def test_a_finished_trial_carries_all_that_is_known_of_it(prepared: Prepare) -> None:
    search = prepared("study.pruner=none", trials=1)
    _, events = _work(search)
    trial = search.study.optuna.trials[0]
    attributes = trial.user_attrs
    config = search.file.suggest(FixedTrial(trial.params)).config
    assert attributes["config_digest"] == config.digest
    assert attributes["num_parameters"] == num_parameters(config.model)
    assert attributes["flops_per_image"] == flops_per_image(config.model)
    assert attributes["device"] == "CPU, threads: 1"
    assert attributes["seed"] == search.study.training_seed(0)
    assert set(attributes["versions"]) == {"kmnist-search", "python", "torch", "optuna"}
    assert attributes["seconds"] > 0
    steps = search.data.train_images // 128
    assert attributes["images_per_second"] == pytest.approx(4 * steps * 128 / attributes["seconds"])
    epochs = [event.epoch for event in events if isinstance(event, EpochDone)]
    assert attributes["train_loss_curve"] == [epoch.train_loss for epoch in epochs]
    assert attributes["train_accuracy_curve"] == [epoch.train_accuracy for epoch in epochs]
    assert trial.intermediate_values == {epoch.number: epoch.val_accuracy for epoch in epochs}
    assert trial.value == epochs[-1].val_accuracy


def test_a_diverged_trial_is_pruned_at_once_with_the_reason(prepared: Prepare) -> None:
    overrides = ("space.learning_rate={low = 1e30, high = 2e30}", "fixed.optimizer=sgd", "fixed.clip_norm=0")
    search = prepared(*overrides, "fixed.warmup_share=0", trials=2)
    _, events = _work(search)
    assert search.study.counts().pruned == 2
    trial = search.study.optuna.trials[0]
    assert trial.user_attrs["reason"].startswith("diverged: the loss is not finite in epoch 1, by step ")
    assert trial.intermediate_values == {}
    assert all(event.epochs == 0 < event.seconds for event in events if isinstance(event, TrialEnded))


def test_a_trial_too_large_for_the_machine_is_told_infeasible_without_being_started(prepared: Prepare) -> None:
    search = prepared("space.dim={choices = [8, 1_000_000_000_000]}", "study.sampler=random", trials=12)
    _, events = _work(search)
    counts = search.study.counts()
    assert (counts.finished, counts.fail) == (12, 0)
    started = {event.number for event in events if isinstance(event, TrialStarted)}
    assert 0 < len(started) < 12
    for trial in search.study.optuna.trials:
        if trial.number in started:
            assert trial.params["dim"] == 8
            assert trial.constraints == {}
            continue
        assert trial.state == TrialState.PRUNED
        pattern = r"infeasible: needs about [\d,]+ GiB, this machine has free [\d,.]+ GiB"
        assert re.fullmatch(pattern, trial.user_attrs["reason"])
        assert trial.user_attrs["config"]["model"]["dim"] == 1_000_000_000_000
        assert trial.constraints["memory"] > 1000
    (infeasible, *_) = [event for event in events if isinstance(event, TrialEnded) and event.number not in started]
    assert infeasible.params["dim"] == 1_000_000_000_000


def test_a_trial_that_runs_out_of_memory_amid_its_training_frees_what_it_held_and_the_next_one_runs(
    prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Training.advance

    def advance_or_too_much(training: Training) -> bool:
        if training.config.patch_mlp.dim == 8 and training.step == 5:
            torch.empty(10**15)  # what a GPU that is too small says, said by the CPU's allocator
        return advance(training)

    monkeypatch.setattr(Training, "advance", advance_or_too_much)
    search = prepared("study.sampler=random", "study.pruner=none", trials=6)
    before = {id(held): held for held in gc.get_objects() if type(held) is Training}  # what other tests have left
    _, events = search.work(StopSignals())
    left_over = [  # the trial at work has one
        sum(type(held) is Training and id(held) not in before for held in gc.get_objects())
        for event in events
        if isinstance(event, TrialStarted)
    ]
    counts = search.study.counts()
    assert counts.fail
    assert counts.complete
    assert counts.finished == 6
    assert left_over == [1] * 6
    failure = status_of(search.study).failures[0]
    assert failure.reason.startswith("out of memory: RuntimeError: ")
    assert "advance_or_too_much" in failure.traceback


@pytest.mark.usefixtures("memory_runs_out")
def test_five_failures_in_a_row_end_the_run_and_leave_the_rest_waiting(prepared: Prepare) -> None:
    search = prepared(trials=9)
    with pytest.raises(TrialsKeepFailingError, match=r"5 trials in a row failed, the last \(number 4\) with"):
        _work(search)
    counts = search.study.counts()
    assert (counts.fail, counts.running, counts.waiting) == (5, 0, 4)


def test_the_target_ends_the_run_and_a_second_run_starts_nothing(prepared: Prepare) -> None:
    search = prepared(target=0.01)
    for _ in range(2):
        worker, _events = _work(search)
        assert worker.stopped_by == "target"
        assert search.study.counts().finished == 1


def test_patience_ends_a_run_that_brings_no_new_best_and_a_second_run_starts_nothing(prepared: Prepare) -> None:
    one_choice = ("space.learning_rate={choices=[1e-30]}", "fixed.dim=8", 'fixed.optimizer="sgd"')
    same = ("study.pruner=none", "train.epochs=1", *one_choice)
    search = prepared(*same, trials=9, patience=3)
    for _ in range(2):
        worker, _events = _work(search)
        assert worker.stopped_by == "patience"
        values = [trial.value for trial in search.study.optuna.trials if trial.value is not None]
        assert len(values) == search.study.counts().finished < 9
        assert trials_since_best(search.study.trials(), maximizes=True) == 3


def test_a_run_out_of_time_with_all_trials_finished_is_done(prepared: Prepare) -> None:
    search = prepared(trials=1)
    _work(search)
    worker, events = search.for_at_most(0.0).work(StopSignals())
    assert list(events) == []
    assert worker.stopped_by == "budget"


@pytest.mark.parametrize("target", [98.0, 0.0, -1.0])
def test_a_target_that_no_accuracy_can_reach_is_refused(prepared: Prepare, target: float) -> None:
    with pytest.raises(ConfigError, match=r"98 % is written 0\.98"):
        prepared(target=target)


def test_the_timeout_hands_the_trial_back_and_the_next_run_ends_it_without_gap_or_double(prepared: Prepare) -> None:
    search = prepared("train.epochs=2000", "study.pruner=none", trials=1)
    worker, events = _work(search, seconds=0.5)
    assert worker.stopped_by == "timeout"
    ended = events[-1]
    assert isinstance(ended, TrialEnded)
    assert ended.outcome == "handed back"
    assert ended.reason.startswith("with a checkpoint at step ")
    assert search.study.counts().waiting == 1
    before = search.study.optuna.trials[0].intermediate_values
    worker, events = _work(search, seconds=0.5)
    started = events[0]
    assert isinstance(started, TrialStarted)
    assert started.epochs_done == len(before) == ended.epochs
    after = search.study.optuna.trials[0].intermediate_values
    assert sorted(after) == list(range(1, len(after) + 1))
    assert {epoch: after[epoch] for epoch in before} == before


def test_an_interrupted_trial_ends_with_the_same_curve_as_an_uninterrupted_one(prepared: Prepare) -> None:
    whole = prepared("study.name=whole", "study.pruner=none", "train.epochs=15", trials=1)
    _work(whole)
    parts = prepared("study.name=parts", "study.pruner=none", "train.epochs=15", trials=1)
    interruptions = 0
    while not parts.study.counts().finished:
        _work(parts, seconds=0.1)
        interruptions += 1
    assert interruptions > 1
    one, other = whole.study.optuna.trials[0], parts.study.optuna.trials[0]
    assert one.params == other.params
    assert one.intermediate_values == other.intermediate_values
    assert one.user_attrs["train_loss_curve"] == other.user_attrs["train_loss_curve"]


def test_the_checkpoint_is_removed_when_its_trial_ends(prepared: Prepare) -> None:
    search = prepared("train.epochs=40", "study.pruner=none", trials=1)
    _work(search, seconds=0.05)
    folder = search.study.checkpoint_dir
    assert [path.name for path in folder.iterdir()] == ["0-1.pt"]
    _work(search)
    assert list(folder.iterdir()) == []


def test_a_lost_checkpoint_begins_the_trial_anew(prepared: Prepare) -> None:
    search = prepared("train.epochs=40", "study.pruner=none", trials=1)
    _work(search, seconds=0.05)
    (search.study.checkpoint_dir / "0-1.pt").unlink()
    _, events = _work(search)
    assert isinstance(events[0], TrialStarted)
    assert events[0].epochs_done == 0
    assert len(search.study.optuna.trials[0].intermediate_values) == 40


def test_a_checkpoint_that_cannot_be_written_costs_only_itself(prepared: Prepare) -> None:
    search = prepared("train.epochs=40", "study.pruner=none", trials=1)
    search.study.storage.checkpoint_dir.write_text("a file where the folder should be")
    _, events = _work(search, seconds=0.05)
    ended = events[-1]
    assert isinstance(ended, TrialEnded)
    assert ended.reason.startswith("without a checkpoint: ")
    assert search.study.counts().waiting == 1


def test_long_trials_are_checkpointed_on_the_way(prepared: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_run, "CHECKPOINT_EVERY_SECONDS", 0.0)
    search = prepared("study.pruner=none", trials=1)
    _, events = search.work(StopSignals())
    for event in events:
        if isinstance(event, EpochDone) and event.epoch.number == 3:
            break
    assert (search.study.checkpoint_dir / "0-1.pt").exists()


def test_a_checkpoint_that_takes_long_is_not_taken_for_a_database_that_is_silent(
    prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kmnist_search.worker.worker.HURRY_SECONDS", 0.2)
    save = Checkpoints.save

    def save_slowly(checkpoints: Checkpoints, training: Training) -> None:
        time.sleep(1.5)  # as gigabytes do
        save(checkpoints, training)

    monkeypatch.setattr(Checkpoints, "save", save_slowly)
    search = prepared("train.epochs=2000", trials=2)
    search = replace(search, options=replace(search.options, per_gpu=2))
    with StopSignals() as signals:
        worker, events = search.work(signals)
        for event in events:
            if isinstance(event, EpochDone) and event.epoch.number == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            assert not isinstance(event, Stopping)
    assert worker.stopped_by == "signal"
    assert search.study.counts().waiting == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_asks_for_a_stop(number: signal.Signals) -> None:
    with StopSignals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), number)
        assert signals.received == number


def test_schedulers_may_signal_twice_but_a_second_ctrl_c_ends_the_process() -> None:
    with StopSignals() as signals:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # as somebody passes on who had it from the terminal, too
        assert signals.received == signal.SIGINT
        time.sleep(1.1 * StopSignals.ECHO_SECONDS)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_ends_the_run_at_the_next_step(prepared: Prepare) -> None:
    search = prepared("train.epochs=2000", trials=3)
    with StopSignals() as signals:
        worker, events = search.work(signals)
        drawn = []
        for event in events:
            drawn.append(event)
            if isinstance(event, EpochDone) and event.epoch.number == 2:
                os.kill(os.getpid(), signal.SIGINT)
    assert worker.stopped_by == "signal"
    ended = drawn[-1]
    assert isinstance(ended, TrialEnded)
    assert (ended.outcome, ended.epochs) == ("handed back", 2)
    assert search.study.counts().running == 0


def test_a_batch_larger_than_the_training_part_is_refused_before_anything_starts(
    prepared: Prepare, storage_url: str
) -> None:
    with pytest.raises(Exception, match="batch_size 5000 is more than the 1,197 training images of digits"):
        prepared("fixed.batch_size=5000")
    assert not Path(storage_url.removeprefix("sqlite:///")).exists()


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:99", "--device cuda:99: this machine has [0-9]+ usable GPUs. Use --device cpu or auto"),
        ("gpu", "--device gpu: use auto, cpu, cuda or cuda:N"),
        ("mps", "--device mps: use auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_device_that_is_not_there_is_refused(tiny_study: Path, tmp_path: Path, device: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        prepare(
            load(tiny_study), RunOptions(storage_url=f"sqlite:///{tmp_path}/x.db", data_dir=tmp_path, device=device)
        )
