"""Trials that pause at rungs and resume, by real trainings in this process, on both kinds of database."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState

from kmnist_search.dashboard.cached_study import CachedStudy, read_studies
from kmnist_search.dashboard_content.snapshot import TrialCache
from kmnist_search.database.storage import open_storage
from kmnist_search.database.trial_writer import PAUSED_KEY
from kmnist_search.host.process import Owner
from kmnist_search.host.signals import StopSignals
from kmnist_search.queue.queue import Paused
from kmnist_search.run.options import RunOptions
from kmnist_search.run.search import Search
from kmnist_search.run.submission import prepare
from kmnist_search.study.cached_storage import CachedStorage
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.parser import load
from kmnist_search.worker.events import Event, TrialEnded, TrialStarted

ASHA = ('study.pruner={name = "asha", min_epochs = 1, reduction_factor = 2}', "study.sampler=random")
Prepare = Callable[..., Search]


@pytest.fixture
def prepared(tiny_study: Path, any_storage_url: str, tmp_path: Path) -> Prepare:
    def make(*overrides: str, trials: int) -> Search:
        options = RunOptions(storage_url=any_storage_url, trials=trials, data_dir=tmp_path, device="cpu")
        return prepare(load(tiny_study, overrides=overrides), options)

    return make


def work(search: Search) -> list[Event]:
    return list(search.work(StopSignals())[1])


def by_state(search: Search, state: TrialState) -> list[FrozenTrial]:
    return [trial for trial in search.study.optuna.trials if trial.state == state]


def checkpoints(study: SearchStudy) -> set[str]:
    return {path.name for path in study.checkpoint_dir.glob("*.pt")}


def test_a_search_that_pauses_has_exactly_its_budget_and_a_complete_trial(prepared: Prepare) -> None:
    search = prepared(*ASHA, trials=7)
    events = work(search)
    counts = search.study.counts()
    assert (counts.finished, counts.running, counts.waiting) == (7, 0, 0)
    complete, paused = by_state(search, TrialState.COMPLETE), by_state(search, TrialState.PRUNED)
    assert complete
    assert all(trial.last_step == 4 for trial in complete)
    assert {trial.system_attrs[PAUSED_KEY] for trial in paused} <= {1, 2}
    attempts = {trial.number: len(trial.user_attrs["attempts"]) for trial in paused}
    assert checkpoints(search.study) == {f"{number}-{attempt}.pt" for number, attempt in attempts.items()}
    resumed = [event for event in events if isinstance(event, TrialStarted) and event.epochs_done]
    assert resumed
    assert [event.outcome for event in events if isinstance(event, TrialEnded)].count("paused") >= len(paused)


def test_a_trial_that_paused_on_its_way_is_the_same_as_one_that_did_not(prepared: Prepare) -> None:
    paused_on_the_way = prepared("study.name=paused", *ASHA, trials=7)
    work(paused_on_the_way)
    straight = prepared("study.name=straight", "study.pruner=none", "study.sampler=random", trials=7)
    work(straight)
    others = {trial.number: trial for trial in by_state(straight, TrialState.COMPLETE)}
    compared = 0
    for trial in by_state(paused_on_the_way, TrialState.COMPLETE):
        other = others[trial.number]
        assert trial.params == other.params
        assert (trial.values, trial.intermediate_values) == (other.values, other.intermediate_values)
        assert trial.user_attrs["train_loss_curve"] == other.user_attrs["train_loss_curve"]
        assert "reason" not in trial.user_attrs
        compared += len(trial.user_attrs["attempts"]) > 1
    assert compared


def test_a_larger_budget_may_resume_what_paused_before(prepared: Prepare) -> None:
    work(prepared(*ASHA, trials=3))
    search = prepared(*ASHA, trials=12)
    before = {trial.number for trial in by_state(search, TrialState.PRUNED)}
    events = work(search)
    assert before & {event.number for event in events if isinstance(event, TrialStarted) and event.epochs_done}
    assert search.study.counts().finished == 12


@pytest.fixture
def study(prepared: Prepare) -> SearchStudy:
    """A study with paused trials, and one that waits."""
    work(prepared(*ASHA, trials=4))
    return prepared(*ASHA, trials=5).study


def a_paused(study: SearchStudy) -> Paused:
    trial = next(trial for trial in study.optuna.trials if PAUSED_KEY in trial.system_attrs)
    return Paused(trial_id=trial._trial_id, rung=trial.system_attrs[PAUSED_KEY])


@pytest.fixture
def claim(study: SearchStudy) -> Iterator[Callable[[str, Paused], int | None]]:
    def claimed(token: str, paused: Paused) -> int | None:
        with study.storage.writing() as connection:
            got = study.queue.claim(
                connection, Owner.this_process(), token=token, lease_seconds=100, budget=5, paused=paused
            )
        return None if got is None else got.trial_id

    yield claimed
    study.storage.disconnect()


def test_a_paused_trial_is_claimed_once_and_then_a_waiting_one(
    study: SearchStudy, claim: Callable[[str, Paused], int | None]
) -> None:
    paused = a_paused(study)
    assert claim("a", paused) == paused.trial_id
    assert claim("a", paused) == paused.trial_id  # the same claim, asked for again
    other = claim("b", paused)
    assert other not in (None, paused.trial_id)
    assert claim("c", paused) is None
    (trial,) = [trial for trial in trials_of(study) if trial._trial_id == paused.trial_id]
    assert trial.state == TrialState.RUNNING
    assert (trial.values, trial.datetime_complete, trial.intermediate_values) == (None, None, {})
    assert PAUSED_KEY not in trial.system_attrs


def test_a_trial_that_paused_at_another_rung_meanwhile_is_not_claimed(
    study: SearchStudy, claim: Callable[[str, Paused], int | None]
) -> None:
    paused = a_paused(study)
    assert claim("a", Paused(trial_id=paused.trial_id, rung=paused.rung + 1)) != paused.trial_id


def test_another_worker_reads_a_trial_again_that_has_resumed(study: SearchStudy, prepared: Prepare) -> None:
    """A worker and two pages have read all trials as finished, before another worker resumes some of them."""
    seen = CachedStorage(study.queue.study_id, study.direction, pauses=True)
    shown = TrialCache(seen)
    last = max(trial._trial_id for trial in study.optuna.trials) + 1
    with study.storage.reading() as connection:
        seen.read_news(connection, complete_until=last)
        shown.trials(connection)
        page = CachedStudy(connection, read_studies(connection)[0])
    work(prepared(*ASHA, trials=9))
    with study.storage.reading() as connection:
        seen.read_news(connection)
        attempts = {trial.number: trial.user_attrs["attempts"] for trial in shown.trials(connection)}
        page.update(connection, read_studies(connection)[0])
    study.storage.disconnect()
    real = {trial.number: trial for trial in trials_of(study)}
    for trial in seen.get_all_trials(0):
        assert trial.state == real[trial.number].state
        assert trial.intermediate_values == real[trial.number].intermediate_values
    assert attempts == {number: trial.user_attrs["attempts"] for number, trial in real.items()}
    assert len(real) == len(seen.get_all_trials(0)) == 9
    assert any(len(trial.user_attrs["attempts"]) > 1 for trial in real.values())
    for trial in real.values():  # the page shows no lists and dictionaries
        trial.user_attrs = {key: each for key, each in trial.user_attrs.items() if not isinstance(each, list | dict)}
    assert page.trials == list(real.values())


def trials_of(study: SearchStudy) -> list[FrozenTrial]:
    """Return the trials as optuna reads them that has not read them before."""
    storage = open_storage(study.storage.url.render_as_string(hide_password=False), create=False)
    trials: list[FrozenTrial] = storage.rdb.get_all_trials(study.queue.study_id)
    storage.disconnect()
    return trials
