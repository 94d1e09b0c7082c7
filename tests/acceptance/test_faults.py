"""Workers killed, paused and signalled while they work: no trial is lost, none is ended twice, none is left over."""

import math
import random
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState

from kmnist_search.database.trial_writer import PAUSED_KEY
from kmnist_search.queue.attempts import LEASE_RAN_OUT, PROCESS_DIED
from kmnist_search.study.halving import Halving
from tests.support.command import TINY_STUDY
from tests.support.exact import CURVES, Look, assert_exact
from tests.support.forked import Forked, Forks, forks, wait_until

pytestmark = pytest.mark.slow

RESUMES = re.compile(r"^trial (\d+) resumes after epoch (\d+)$", re.MULTILINE)
#: Of a trial that something happens to on the way.
EPOCHS = 20
#: In each kind of database.
KILLS = 12
#: What a trial proposes and how it is trained depends on nothing but its number: two studies can be compared.
COMPARABLE = ("--set", "study.sampler=random", "--set", "study.pruner=none")


@pytest.fixture
def start(tmp_path: Path, tiny_study: Path) -> Iterator[Forks]:
    """Start commands in the folder that has `tiny.toml`."""
    with forks(tmp_path) as lent:
        yield lent


@pytest.fixture
def look(any_storage_url: str) -> Look:
    return Look(any_storage_url)


def _run(look: Look, *, trials: int, epochs: int, lease_seconds: float = 8) -> tuple[str, ...]:
    """Return the command that works on the study; `--set` and other options may follow."""
    url = look.url.set(drivername=look.url.get_backend_name()).render_as_string(hide_password=False)
    amount = ("--trials", str(trials), "--epochs", str(epochs))
    return ("run", "tiny.toml", *amount, "--storage", url, "--set", f"study.lease_seconds={lease_seconds}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> FrozenTrial:
    """The first trial of a study that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tiny.toml").write_text(TINY_STUDY)
    look = Look(f"sqlite:///{folder / 'search.db'}")
    with forks(folder) as start:
        start.finished(*_run(look, trials=1, epochs=EPOCHS), *COMPARABLE)
    (trial,) = look.trials()
    return trial


def _assert_same(one: FrozenTrial, other: FrozenTrial) -> None:
    for key in ("number", "params", "values", "intermediate_values"):
        assert getattr(one, key) == getattr(other, key)
    for curve in CURVES:
        assert one.user_attrs[f"{curve}_curve"] == other.user_attrs[f"{curve}_curve"]


def test_kills_at_random_moments_lose_nothing_and_end_nothing_twice(start: Forks, look: Look, tmp_path: Path) -> None:
    pruner = 'study.pruner={name = "asha", min_epochs = 3, reduction_factor = 2}'
    moments = random.Random(0)
    kills = trials = 0
    lives: dict[Forked, float] = {}
    births: dict[Forked, float] = {}

    def work() -> Forked:
        settings = ("--set", pruner, "--set", "study.max_retries=1000")
        return start(*_run(look, trials=trials, epochs=12), *settings, checkpoint_seconds=0.05)

    while kills < KILLS or trials <= 10:  # it does get on
        while len(lives) < 3:
            states = look.states()
            trials = max(trials, states["COMPLETE"] + states["PRUNED"] + 6)  # there is always something to do
            run = work()
            lives[run] = moments.uniform(0.0, 1.5)
            if moments.random() < 0.2:
                births[run] = time.monotonic()  # the others live from when they are ready, however busy the machine is
        for run, life in list(lives.items()):
            if run not in births and "study tiny" in run.output:
                births[run] = time.monotonic()
            if run.exit_code is not None or time.monotonic() > births.get(run, math.inf) + life:
                del lives[run]
                kills += run.kill()
                assert run.exit_code in (0, -signal.SIGKILL), run.output
        time.sleep(0.01)
    for run in lives:
        run.kill()
    assert work().ended() == 0
    assert_exact(look, start.started, trials=trials, epochs=12)
    assert sum(how == PROCESS_DIED for number in range(trials) for how in look.hows(number)) > KILLS / 4
    _assert_paused_as_they_should(look.trials(), tmp_path)


def _assert_paused_as_they_should(trials: list[FrozenTrial], folder: Path) -> None:
    """Assert that no trial is paused that should have resumed, and that each paused one has its checkpoint."""
    halving = Halving.of(min_epochs=3, epochs=12, factor=2, maximizes=True)
    assert halving.rungs == (3, 6)
    assert halving.next_paused(trials, is_last_chance=True) is None
    paused = {trial.number: len(trial.user_attrs["attempts"]) for trial in trials if trial.state == TrialState.PRUNED}
    assert all(trial.system_attrs[PAUSED_KEY] == trial.last_step for trial in trials if trial.number in paused)
    kept = {path.name for path in folder.rglob("*.pt")}
    assert {f"{number}-{attempt}.pt" for number, attempt in paused.items()} <= kept
    assert any(attempt["how"] == "paused" for trial in trials for attempt in trial.user_attrs["attempts"][:-1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda number: number.name)
def test_a_signal_hands_the_trial_back_and_the_next_run_ends_it_as_if_nothing_had_been(
    start: Forks, look: Look, undisturbed: FrozenTrial, number: signal.Signals
) -> None:
    work = (*_run(look, trials=1, epochs=EPOCHS), *COMPARABLE)
    first = start.slowly(*work)
    wait_until(lambda: look.step() > 0, first)
    first.signal(number)
    assert first.ended() == 130, first.output
    assert re.search(r"^\[0/1\] trial 0 handed back \(with a checkpoint at step [\d,]+\)", first.output, re.MULTILINE)
    assert "none is left running here. To resume: kmnist-search run tiny.toml --trials 1" in first.output
    assert look.states() == {"WAITING": 1}
    assert look.rows("SELECT * FROM kmnist_search_leases") == []
    (attempt,) = look.attempts()
    assert attempt["how"] == f"handed back: {number.name}"
    assert attempt["epochs"] == look.step()
    second = start.finished(*work)
    assert RESUMES.findall(second.output) == [("0", str(attempt["epochs"]))]
    assert_exact(look, [first, second], trials=1, epochs=EPOCHS)
    _assert_same(look.trials()[0], undisturbed)


def _can_be_written(look: Look) -> bool:
    """Return whether nobody holds a lock on a SQLite file; on Postgres a study is locked for a moment only."""
    if not look.is_sqlite:
        return True
    try:
        with closing(sqlite3.connect(str(look.url.database), timeout=0.2)) as connection:
            connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    return True


def _pause_in_trial_0(look: Look, run: Forked) -> None:
    """Pause a worker when it holds no lock, until its lease has run out."""
    wait_until(lambda: look.step() > 0, run, every=0.02)
    run.signal(signal.SIGSTOP)
    while not _can_be_written(look):
        run.signal(signal.SIGCONT)
        time.sleep(0.5)
        run.signal(signal.SIGSTOP)
    now = "(julianday('now') - 2440587.5) * 86400.0" if look.is_sqlite else "extract(epoch from clock_timestamp())"
    holds = f"SELECT * FROM kmnist_search_leases WHERE renewed_at + seconds > {now}"
    assert look.rows(holds)
    wait_until(lambda: not look.rows(holds), run)


def test_a_worker_paused_beyond_its_lease_leaves_the_trial_to_who_took_it_and_continues(
    start: Forks, look: Look
) -> None:
    work = (*_run(look, trials=3, epochs=EPOCHS, lease_seconds=2), *COMPARABLE)
    paused = start.slowly(*work)
    _pause_in_trial_0(look, paused)
    other = start.slowly(*work)
    wait_until(lambda: len(look.attempts()) == 2, other)
    wait_until(lambda: look.step() > 0, other)
    assert "back in the queue, because its worker is gone: trial 0" in other.output
    paused.signal(signal.SIGCONT)
    assert (paused.ended(), other.ended()) == (0, 0)
    assert "trial 0 lost (its lease ran out, or the study was deleted)" in paused.output
    assert "trial 1 complete" in paused.output
    assert_exact(look, start.started, trials=3, epochs=EPOCHS)
    assert look.hows() == [f"{LEASE_RAN_OUT} (2 s)", "complete"]
    assert look.attempts()[1]["pid"] == other.pid
    assert look.attempts(1)[0]["pid"] == paused.pid


def test_a_worker_paused_until_all_is_over_ends_quietly(start: Forks, look: Look) -> None:
    work = (*_run(look, trials=2, epochs=EPOCHS, lease_seconds=2), "--set", "study.pruner=none")
    paused = start.slowly(*work)
    _pause_in_trial_0(look, paused)
    other = start.finished(*work)
    before = look.trials()
    paused.signal(signal.SIGCONT)
    assert paused.ended() == 0
    assert "trial 0 lost" in paused.output
    assert "Done: 2 of 2 trials are finished" in paused.output
    assert_exact(look, [paused, other], trials=2, epochs=EPOCHS)
    assert look.trials() == before


def test_a_worker_paused_beyond_its_lease_that_nobody_wanted_continues_its_trial(start: Forks, look: Look) -> None:
    paused = start.slowly(*_run(look, trials=1, epochs=EPOCHS, lease_seconds=1), "--set", "study.pruner=none")
    _pause_in_trial_0(look, paused)
    paused.signal(signal.SIGCONT)
    assert paused.ended() == 0
    assert_exact(look, [paused], trials=1, epochs=EPOCHS)
    assert look.hows() == ["complete"]


def test_only_a_shared_folder_of_checkpoints_lets_a_trial_resume(
    start: Forks, look: Look, undisturbed: FrozenTrial
) -> None:
    work = (*_run(look, trials=1, epochs=EPOCHS), *COMPARABLE)
    for attempt, folder in enumerate(("here", "elsewhere"), 1):
        run = start.slowly(*work, "--checkpoints", folder)
        wait_until(lambda attempt=attempt: len(look.attempts()) == attempt and look.step() > 0, run)  # type: ignore[misc]
        run.signal(signal.SIGTERM)
        assert run.ended() == 130, run.output
    start.finished(*work, "--checkpoints", "here")
    first, second, _third = look.attempts()
    assert first["epochs"] > 0
    assert second["epochs"] > 0
    assert [RESUMES.findall(run.output) for run in start.started] == [[], [], [("0", str(first["epochs"]))]]
    assert_exact(look, start.started, trials=1, epochs=EPOCHS)
    _assert_same(look.trials()[0], undisturbed)


def _kill_twice_in_trial_0(start: Forks, look: Look, *work: str) -> None:
    for attempt in (1, 2):
        run = start.slowly(*work)
        wait_until(lambda attempt=attempt: len(look.attempts()) == attempt, run)  # type: ignore[misc]
        assert run.kill()


def test_a_trial_that_its_workers_do_not_survive_is_failed_and_the_study_still_ends(start: Forks, look: Look) -> None:
    work = (*_run(look, trials=3, epochs=EPOCHS), "--set", "study.max_retries=1")
    _kill_twice_in_trial_0(start, look, *work)
    last = start.finished(*work)
    assert "Done: 3 of 3 trials are finished" in last.output
    assert_exact(look, start.started, trials=3, epochs=EPOCHS, lost=[0])
    assert look.hows() == [PROCESS_DIED, PROCESS_DIED]


def test_a_trial_that_was_lost_too_often_is_not_said_to_be_taken_up_again(start: Forks, look: Look) -> None:
    work = (*_run(look, trials=1, epochs=EPOCHS), "--set", "study.max_retries=1")
    _kill_twice_in_trial_0(start, look, *work)
    last = start.finished(*work)
    assert look.states() == {"FAIL": 1}
    assert "back in the queue" not in last.output
