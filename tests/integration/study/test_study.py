"""Studies in a real database: remembered, found, refused, and how they propose and prune."""

import json
import multiprocessing
import multiprocessing.synchronize
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.trial import Trial, TrialState

from kmnist_search.database.storage import Storage, open_storage
from kmnist_search.errors import NoCompleteTrialError, StudyChangedError, StudyNotFoundError
from kmnist_search.queue.queue import Claim
from kmnist_search.queue.workers import WorkerInfo
from kmnist_search.study.opening import find_study, open_study, study_names
from kmnist_search.study.proposals import Proposals
from kmnist_search.study.status import status_of
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.parser import load
from kmnist_search.study_file.schema import SearchFile
from kmnist_search.worker.database_thread import DatabaseThread


@pytest.fixture
def storage(any_storage_url: str) -> Iterator[Storage]:
    storage = open_storage(any_storage_url, create=True)
    yield storage
    storage.disconnect()


@pytest.fixture
def file(tiny_study: Path) -> SearchFile:
    return load(tiny_study)


class Clerk:
    """Takes and ends trials of a study without training them."""

    def __init__(self, proposals: Proposals, database_thread: DatabaseThread) -> None:
        self.proposals, self.database_thread = proposals, database_thread

    def take(self) -> tuple[Claim, Trial]:
        claim = self.database_thread.claim(budget=1000).result(240)
        assert claim is not None
        trial = self.proposals.trial(claim)
        self.proposals.file.suggest(trial)
        return claim, trial

    def end(self, claim: Claim, trial: Trial, value: float | None = None, state: TrialState | None = None) -> None:
        trial.study.tell(trial, value, state=state)
        assert self.database_thread.finish(claim, epochs=trial.study.trials[-1].last_step or 0).result(240)


@contextmanager
def clerk_of(study: SearchStudy, file: SearchFile) -> Iterator[Clerk]:
    proposals = Proposals(study, file)
    with DatabaseThread(
        study,
        proposals.cached_storage,
        lease_seconds=100,
        max_retries=3,
        database_timeout=240,
        counts=study.counts(),
        info=WorkerInfo(device="CPU", versions={}, job=None),
    ) as database_thread:
        yield Clerk(proposals, database_thread)


def _finish(study: SearchStudy, file: SearchFile, *values: float) -> None:
    study.fill(study.counts().total + len(values))
    with clerk_of(study, file) as clerk:
        for value in values:
            clerk.end(*clerk.take(), value)


def test_a_study_resumes_where_it_was(storage: Storage, file: SearchFile) -> None:
    _finish(open_study(storage, file), file, 0.5)
    again = open_study(storage, file)
    assert again.counts().complete == 1


def test_a_changed_study_file_is_refused_with_the_difference_and_the_way_out(
    storage: Storage, tiny_study: Path, file: SearchFile
) -> None:
    open_study(storage, file)
    overrides = ["train.epochs=9", "space.dim={choices = [8]}", "fixed.skip=false", "constraints.max_flops=10_000_000"]
    changed = load(tiny_study, overrides=overrides)
    with pytest.raises(StudyChangedError) as error:
        open_study(storage, changed)
    assert str(error.value) == (
        f"study 'tiny' in {storage.shown_url} was started with other settings:\n"
        "  constraints.max_flops: not set then, 10000000 now\n"
        "  fixed.skip: not set then, False now\n"
        "  space.dim.choices: [8, 16] then, [8] now\n"
        "  train.epochs: 4 then, 9 now\n"
        "Trials with different settings cannot be compared. Use the first settings again, or start another study: "
        "--name tiny-2"
    )


def test_a_new_budget_is_no_change(storage: Storage, tiny_study: Path, file: SearchFile) -> None:
    open_study(storage, file)
    again = open_study(storage, load(tiny_study, overrides=["study.trials=99"]))
    assert study_names(storage) == [again.name] == ["tiny"]


def test_a_study_that_somebody_else_made_is_refused(storage: Storage, file: SearchFile) -> None:
    foreign = optuna.create_study(study_name="tiny", storage=storage.rdb, direction="maximize")
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(StudyChangedError, match="has a study 'tiny' that kmnist-search did not make"):
        open_study(storage, file)


def test_other_images_are_refused(storage: Storage, file: SearchFile, tmp_path: Path) -> None:
    open_study(storage, file).record_data({file.data: "aaa"}, tmp_path)
    open_study(storage, file).record_data({file.data: "aaa"}, tmp_path)
    with pytest.raises(StudyChangedError, match=r"data digest aaa, now bbb"):
        open_study(storage, file).record_data({file.data: "bbb"}, tmp_path)


def test_without_a_name_the_study_last_worked_on_is_found(storage: Storage, tiny_study: Path) -> None:
    for name in ("one", "two", "three"):
        open_study(storage, load(tiny_study, overrides=[f"study.name={name}"])).touch()
    find_study(storage, "two").touch()
    assert find_study(storage, None).name == "two"
    assert study_names(storage) == ["two", "three", "one"]


def test_a_missing_study_names_those_that_exist(storage: Storage, tiny_study: Path) -> None:
    with pytest.raises(StudyNotFoundError, match=r"contains no study yet\. Start one with: kmnist-search run"):
        find_study(storage, None)
    open_study(storage, load(tiny_study)).touch()
    with pytest.raises(StudyNotFoundError, match=r"has no study 'tinny'. Did you mean 'tiny'\? It contains: tiny."):
        find_study(storage, "tinny")


def test_every_trial_draws_its_own_proposals_and_a_restart_does_not_repeat_them(
    storage: Storage, file: SearchFile
) -> None:
    for _ in range(4):  # as four processes, one after another, would
        _finish(open_study(storage, file), file, 0.5)
    rates = [trial.params["learning_rate"] for trial in open_study(storage, file).trials()]
    assert len(set(rates)) == 4


def test_the_same_seed_proposes_the_same_and_another_seed_does_not(tmp_path: Path, tiny_study: Path) -> None:
    def rates(name: str, seed: int) -> list[float]:
        file = load(tiny_study, overrides=[f"study.seed={seed}"])
        study = open_study(open_storage(f"sqlite:///{tmp_path}/{name}.db", create=True), file)
        _finish(study, file, *[0.1 * number for number in range(6)])
        return [trial.params["learning_rate"] for trial in study.optuna.trials]

    assert rates("a", 1) == rates("b", 1)
    assert rates("a2", 1) != rates("c", 2)


def test_the_folder_of_the_images_is_remembered_where_it_is_there(
    storage: Storage, file: SearchFile, tmp_path: Path
) -> None:
    study = open_study(storage, file)
    assert study.data_dir() is None
    study.record_data({file.data: "aaa"}, tmp_path)
    assert open_study(storage, file).data_dir() == tmp_path
    study.record_data({file.data: "aaa"}, tmp_path / "on another machine")
    assert open_study(storage, file).data_dir() is None


def test_trainings_of_different_trials_have_different_seeds(storage: Storage, file: SearchFile) -> None:
    study = open_study(storage, file)
    seeds = [study.training_seed(number) for number in range(100)]
    assert len(set(seeds)) == 100
    assert seeds == [open_study(storage, file).training_seed(number) for number in range(100)]


def test_the_best_is_the_highest_accuracy_or_the_lowest_loss(storage: Storage, tiny_study: Path) -> None:
    for metric, best, target in (("val_accuracy", 0.9, 0.8), ("val_loss", 0.1, 0.2)):
        file = load(tiny_study, overrides=[f"study.metric={metric}", f"study.name={metric}"])
        study = open_study(storage, file)
        with pytest.raises(NoCompleteTrialError, match="has no complete trial yet: 0 of 0"):
            study.complete()
        _finish(study, file, 0.5, best, 0.6)
        assert study.complete()[0].value == best
        assert study.is_as_good(best, target)
        assert not study.is_as_good(0.5, target)


@pytest.mark.parametrize("pruner", ["hyperband", "successive_halving", "median"])
def test_each_pruner_ends_the_worst_of_many_trials(storage: Storage, tiny_study: Path, pruner: str) -> None:
    file = load(tiny_study, overrides=[f"study.pruner={{name = '{pruner}', min_epochs = 1}}", "train.epochs=9"])
    study = open_study(storage, file)
    study.fill(20)
    ended = []
    with clerk_of(study, file) as clerk:
        for number in range(20):
            claim, trial = clerk.take()
            for epoch in range(1, 10):
                trial.report((20 - number) * 0.01 * epoch, epoch)
                if trial.should_prune():
                    clerk.end(claim, trial, state=TrialState.PRUNED)
                    ended.append(number)
                    break
            else:
                clerk.end(claim, trial, 0.0)
    assert ended
    assert study.counts().pruned == len(ended)
    assert study.optuna.trials[ended[0]].value == study.optuna.trials[ended[0]].intermediate_values[1]


def test_no_pruner_prunes_nothing(storage: Storage, tiny_study: Path) -> None:
    file = load(tiny_study, overrides=["study.pruner=none"])
    study = open_study(storage, file)
    _finish(study, file, *[0.9] * 5)
    study.fill(6)
    with clerk_of(study, file) as clerk:
        _, trial = clerk.take()
        trial.report(0.0, 3)
        assert not trial.should_prune()


def test_status_tells_states_best_running_and_failures(storage: Storage, file: SearchFile) -> None:
    study = open_study(storage, file)
    _finish(study, file, 0.5, 0.7)
    study.fill(5)
    with clerk_of(study, file) as clerk:
        broken, running = clerk.take(), clerk.take()
        broken[1].set_user_attr("reason", "it broke")
        broken[1].set_user_attr("traceback", "Traceback ...")
        clerk.end(*broken, state=TrialState.FAIL)
        running[1].report(0.4, 2)
        _wait_until(lambda: status_of(study).running[0].epoch == 2)
        status = status_of(study)
    counts = status.progress.counts
    assert (counts.complete, counts.fail, counts.running, counts.waiting) == (2, 1, 1, 1)
    assert status.progress.best is not None
    assert status.progress.best.value == 0.7
    (at_work,) = status.running
    assert (at_work.number, at_work.epoch, at_work.value, at_work.reports) == (3, 2, 0.4, {2: 0.4})
    assert at_work.params.keys() == {"learning_rate", "dim"}
    assert not at_work.is_ahead  # the best one has reported nothing then
    assert status.bests == [0.5, 0.7, 0.7]
    assert at_work.attempts[-1]["pid"] == os.getpid()
    assert [(each.number, each.reason, each.traceback) for each in status.failures] == [
        (2, "it broke", "Traceback ...")
    ]
    assert status.progress.time_left(5) is not None


def _wait_until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _open_at_once(url: str, path: Path, barrier: "multiprocessing.synchronize.Barrier", name: str) -> None:
    barrier.wait(240)
    study = open_study(open_storage(url, create=True), load(path))
    (path.parent / f"{name}.txt").write_text(str(study.checkpoint_dir))
    os._exit(0)


@pytest.mark.slow
def test_processes_that_begin_a_study_at_once_agree_on_it(any_storage_url: str, tiny_study: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(8)
    processes = [
        context.Process(target=_open_at_once, args=(any_storage_url, tiny_study, barrier, f"agreed-{number}"))
        for number in range(8)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0] * 8
    assert len({path.read_text() for path in tiny_study.parent.glob("agreed-*.txt")}) == 1


def test_a_study_from_before_a_setting_existed_resumes_with_its_default(storage: Storage, file: SearchFile) -> None:
    study = open_study(storage, file)
    before = json.loads(json.dumps(study.settings))
    del before["data"]["normalisation"]
    study.optuna.set_user_attr("study_file", before)
    assert open_study(storage, file).file == file
    changed = file.model_copy(update={"data": file.data.model_copy(update={"normalisation": "none"})})
    with pytest.raises(StudyChangedError, match=r"data\.normalisation: standard then, none now"):
        open_study(storage, changed)
