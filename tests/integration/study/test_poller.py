"""Looks at a study that others work on: each sees all of it, reads only what is new, and puts back what was lost."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from kmnist_search.database.errors import DATABASE_ERRORS
from kmnist_search.database.storage import open_storage
from kmnist_search.database.trial_reader import read_trials
from kmnist_search.database.trial_writer import Changes, write_changes
from kmnist_search.errors import StudyNotFoundError
from kmnist_search.host.process import Owner
from kmnist_search.queue.queue import Claim
from kmnist_search.study import cached_storage, poller as poller
from kmnist_search.study.opening import find_study, open_study
from kmnist_search.study.poller import Away, Poller
from kmnist_search.study.status import Status, status_of
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.parser import load
from kmnist_search.watch.watch import watch


@pytest.fixture
def study(any_storage_url: str, tiny_study: Path) -> Iterator[SearchStudy]:
    study = open_study(open_storage(any_storage_url, create=True), load(tiny_study))
    study.fill(8)
    yield study
    study.storage.disconnect()


def _claim(study: SearchStudy, owner: Owner | None = None) -> Claim:
    with study.storage.writing() as connection:
        claim = study.queue.claim(
            connection, owner or Owner.this_process(), token=uuid4().hex, lease_seconds=100, budget=None
        )
    assert claim is not None
    return claim


def _end(study: SearchStudy, claim: Claim, value: float, state: TrialState = TrialState.COMPLETE) -> None:
    with study.storage.writing() as connection:
        assert study.queue.finish(connection, claim, Changes(ending=(state, [value])), epochs=4)


def _statuses(study: SearchStudy) -> Iterator[Status | Away]:
    return Poller(study).statuses(pause=lambda seconds: None)


def _without_time(status: Status) -> Status:
    """Return what two looks at the same have in common."""
    running = [replace(each, seconds=None) for each in status.running]
    return replace(status, running=running, progress=replace(status.progress, forecast=None))


def test_each_look_sees_what_status_sees_though_it_reads_only_what_is_new(
    study: SearchStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[int]] = []

    def noted(*arguments: Any, **options: Any) -> list[FrozenTrial]:
        trials = read_trials(*arguments, **options)
        read.append([trial.number for trial in trials if trial.state != TrialState.WAITING])
        return trials

    monkeypatch.setattr(cached_storage, "read_trials", noted)
    statuses = _statuses(study)

    def assert_all_is_seen() -> Status:
        seen = next(statuses)
        assert isinstance(seen, Status)
        assert _without_time(seen) == _without_time(status_of(study))
        return seen

    assert_all_is_seen()
    first, second, third = _claim(study), _claim(study), _claim(study)
    assert_all_is_seen()
    _end(study, second, 0.7)
    _end(study, third, 0.6)
    seen = assert_all_is_seen()
    assert [each.number for each in seen.running] == [0]
    assert seen.bests == [0.7, 0.7]
    fourth = _claim(study)
    assert_all_is_seen()
    _end(study, first, 0.8)
    _end(study, fourth, 0.9)
    seen = assert_all_is_seen()
    assert seen.bests == [0.7, 0.7, 0.8, 0.9]
    assert seen.progress.best is not None
    assert seen.progress.best.number == 3
    assert read == [[], [0, 1, 2], [0, 1, 2], [0, 3], [0, 3]]
    assert_all_is_seen()
    assert read[-1] == []


def test_a_trial_at_work_that_is_better_than_the_best_was_then_is_ahead(study: SearchStudy) -> None:
    claims = [_claim(study) for _ in range(3)]
    with study.storage.writing() as connection:
        for claim, values in zip(claims, ((0.5, 0.7), (0.6,), (0.5,)), strict=True):
            write_changes(connection, claim.trial_id, Changes(reports=dict(enumerate(values, start=1))))
    _end(study, claims[0], 0.7)
    seen = next(_statuses(study))
    assert isinstance(seen, Status)
    assert [(each.number, each.is_ahead) for each in seen.running] == [(1, True), (2, False)]


def test_a_trial_of_a_dead_process_is_put_back_and_seen_no_more(study: SearchStudy, dead_owner: Owner) -> None:
    _claim(study, dead_owner)
    seen = next(_statuses(study))
    assert isinstance(seen, Status)
    assert (seen.progress.counts.running, seen.progress.counts.waiting) == (0, 8)
    assert not seen.running


def test_a_study_that_is_deleted_is_not_taken_for_an_empty_one(study: SearchStudy) -> None:
    statuses = _statuses(study)
    next(statuses)
    study.storage.rdb.delete_study(study.queue.study_id)
    with pytest.raises(StudyNotFoundError, match=r"study 'tiny' in .* was deleted in the meantime"):
        next(statuses)


def test_another_study_with_the_id_of_the_one_that_was_deleted_is_not_taken_for_it(
    storage_url: str, tiny_study: Path
) -> None:
    study = open_study(open_storage(storage_url, create=True), load(tiny_study))
    statuses = _statuses(study)
    next(statuses)
    study.storage.rdb.delete_study(study.queue.study_id)
    again = open_study(open_storage(storage_url, create=True), load(tiny_study))
    assert again.queue.study_id == study.queue.study_id  # SQLite gives ids a second time
    with pytest.raises(StudyNotFoundError):
        next(statuses)


def test_who_may_only_read_sees_it_too(postgres: Any, as_reader: Callable[[str], str], tiny_study: Path) -> None:
    url = postgres.new_database()
    study = open_study(open_storage(url, create=True), load(tiny_study))
    study.fill(2)
    study.storage.disconnect()
    found = find_study(open_storage(as_reader(url), create=False), "tiny")
    for seen in itertools.islice(_statuses(found), 2):
        assert isinstance(seen, Status)
        assert seen.progress.counts.waiting == 2
    found.storage.disconnect()


def test_a_database_that_will_not_answer_again_ends_the_looks(storage_url: str, tiny_study: Path) -> None:
    study = open_study(open_storage(storage_url, create=True), load(tiny_study))
    statuses = _statuses(study)
    next(statuses)
    for path in Path(storage_url.removeprefix("sqlite:///")).parent.glob("search.db*"):
        path.unlink()
    with pytest.raises(DATABASE_ERRORS):
        next(statuses)


def test_without_a_terminal_a_watched_study_is_lines_each_of_which_says_something_new(
    study: SearchStudy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "READ_SECONDS", 0.0)
    monkeypatch.setattr(poller, "READING_SHARE", 1.0)
    looked = 0

    def is_over(status: Status) -> bool:
        nonlocal looked
        looked += 1
        if looked == 2:
            _end(study, _claim(study), 0.75)
        return looked == 4

    watch(Console(width=100), study, is_over=is_over)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  best")[0] for line in lines] == [
        "[0/8] 0 complete  0 pruned  0 failed  0 running  8 waiting  0 workers",
        "[1/8] 1 complete  0 pruned  0 failed  0 running  7 waiting  0 workers",
    ]
    assert lines[1].rstrip().endswith("best val_accuracy 75.00 %  trial 0")
