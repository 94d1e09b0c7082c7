"""The workers of a study as they see each other, on both kinds of database."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import optuna
import pytest
from sqlalchemy import text

from kmnist_search.database.storage import Storage, open_storage
from kmnist_search.host.process import Owner
from kmnist_search.queue.workers import (
    RegisteredWorker,
    Registration,
    WorkerInfo,
    registered_workers,
    remove_gone_workers,
)

HERE = Owner.this_process()
ELSEWHERE = replace(HERE, host="gpu7", machine="another machine")
FACTS = WorkerInfo(device="NVIDIA H200", versions={"torch": "2.11.0"}, job="12_3")


@pytest.fixture
def storage(any_storage_url: str) -> Iterator[Storage]:
    storage = open_storage(any_storage_url, create=True)
    yield storage
    storage.disconnect()


@pytest.fixture
def study_id(storage: Storage) -> int:
    return optuna.create_study(study_name="s", storage=storage.rdb)._study_id


@pytest.fixture
def register(study_id: int) -> Callable[..., Registration]:
    def make(worker_id: str, owner: Owner = ELSEWHERE, *, seconds: float = 100.0) -> Registration:
        return Registration(worker_id=worker_id, study_id=study_id, owner=owner, info=FACTS, seconds=seconds)

    return make


def _heartbeat(storage: Storage, registration: Registration, *, finished: int = 0, age: float = 0.0) -> None:
    with storage.writing() as connection:
        registration.heartbeat(connection, finished=finished, age=age)


def _members(storage: Storage, study_id: int | None = None) -> list[RegisteredWorker]:
    with storage.reading() as connection:
        return registered_workers(connection, study_id)


def test_a_worker_is_there_once_however_many_heartbeats_it_sends_and_gone_when_it_leaves(
    storage: Storage, study_id: int, register: Callable[..., Registration]
) -> None:
    older, newer = register("older"), register("newer", HERE)
    _heartbeat(storage, newer, age=10)
    for finished in (0, 3):
        _heartbeat(storage, older, finished=finished, age=3600)
    first, second = _members(storage, study_id)
    assert (first.owner, first.info, first.finished) == (ELSEWHERE, FACTS, 3)
    assert first.age == pytest.approx(3600, abs=1)
    assert first.trials_per_hour == pytest.approx(3, abs=0.01)
    assert (second.owner, second.trials_per_hour) == (HERE, None)
    assert not first.is_gone
    assert not second.is_gone
    with storage.writing() as connection:
        older.leave(connection)
        older.leave(connection)
    assert [member.owner for member in _members(storage)] == [HERE]


def test_who_was_not_seen_for_its_time_or_is_known_dead_is_gone(
    storage: Storage, study_id: int, register: Callable[..., Registration], dead_owner: Owner
) -> None:
    _heartbeat(storage, register("silent", seconds=0.2))
    _heartbeat(storage, register("dead", dead_owner))
    assert [member.is_gone for member in _members(storage, study_id)] == [False, True]
    time.sleep(0.3)
    silent, _ = _members(storage, study_id)
    assert silent.is_gone
    assert 0.3 <= silent.unseen < 30


def test_the_dead_are_forgotten_at_once_and_the_silent_after_an_hour(
    storage: Storage, study_id: int, register: Callable[..., Registration], dead_owner: Owner
) -> None:
    for name, owner in (("dead", dead_owner), ("silent", ELSEWHERE), ("seen", ELSEWHERE)):
        _heartbeat(storage, register(name, owner))
    with storage.writing() as connection:
        remove_gone_workers(connection, study_id)
    assert len(_members(storage)) == 2
    with storage.writing() as connection:
        connection.execute(text("UPDATE kmnist_search_workers SET seen_at = seen_at - 3601 WHERE worker_id = 'silent'"))
        remove_gone_workers(connection, study_id)
    (left,) = _members(storage)
    assert left.unseen < 3000


def test_nobody_is_a_worker_of_a_study_that_was_deleted(
    storage: Storage, study_id: int, register: Callable[..., Registration]
) -> None:
    optuna.delete_study(study_name="s", storage=storage.rdb)
    _heartbeat(storage, register("late"))
    assert _members(storage) == []


def test_a_database_without_a_table_of_workers_gets_one(any_storage_url: str) -> None:
    storage = open_storage(any_storage_url, create=True)
    with storage.writing() as connection:
        connection.execute(text("DROP TABLE kmnist_search_workers"))
    storage.disconnect()
    again = open_storage(any_storage_url, create=False)
    assert _members(again) == []
    again.disconnect()
