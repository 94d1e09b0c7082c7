"""One run with several worker processes: killed, interrupted, orphaned, broken. The budget is exact, nobody is left."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from kmnist_search.engine import verdict
from kmnist_search.engine.verdict import Verdict
from kmnist_search.errors import ConfigError, WorkerDiedError
from kmnist_search.host.signals import StopSignals
from kmnist_search.queue.attempts import PROCESS_DIED
from kmnist_search.run.options import RunOptions
from kmnist_search.run.placement import Place, devices_of
from kmnist_search.run.search import Search
from kmnist_search.run.submission import prepare
from kmnist_search.run.supervisor import Supervisor
from kmnist_search.study_file.parser import load
from kmnist_search.worker.events import RunWarning
from tests.support.command import Command
from tests.support.exact import ENDED, Look, assert_exact
from tests.support.forked import Forked, Ways, forks, wait_until
from tests.support.stand_in_gpu import StandInGpu

pytestmark = pytest.mark.slow

FINISHED = re.compile(r"^\[(\d+)/\d+\] trial \d+ (?:complete|pruned|failed)", re.MULTILINE)


def _workers(run: Forked) -> list[psutil.Process]:
    """Return the worker processes, the oldest first."""
    return sorted(psutil.Process(run.pid).children(), key=lambda each: each.create_time())


def _left(group: int | None) -> list[int]:
    """Return the processes of a command's group that still run."""
    return [process.pid for process in psutil.process_iter() if _is_of_group(process, group)]


def _leaves_nobody(run: Command | Forked, *, seconds: float = 240) -> bool:
    """Return whether all its processes end in so many seconds; what python starts with them ends just after."""
    deadline = time.monotonic() + seconds
    while _left(run.process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not _left(run.process.pid)


def _interrupt(run: Forked) -> None:
    """Do what a terminal does at Ctrl-C: signal all processes in it."""
    os.killpg(run.pid, signal.SIGINT)


def _is_of_group(process: psutil.Process, group: int | None) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def _command(trials: int, epochs: int, *options: str) -> tuple[str, ...]:
    """Return the command that lets two workers work on the study `tiny`."""
    amount = ("--trials", str(trials), "--epochs", str(epochs))
    return ("run", "tiny.toml", *amount, "--workers", "2", *options, "--set", "study.pruner=none")


@pytest.fixture
def start(tmp_path: Path, tiny_study: Path) -> Iterator[Callable[..., Forked]]:
    """Start a run whose trainings take their time, and which forks its workers: that spawned ones work is seen once."""
    with forks(tmp_path) as lent:
        ways = Ways(step_seconds=0.02, forks_workers=True)
        yield lambda *arguments: lent.start(*_command(*arguments), ways=ways)
        for run in lent.started:
            for pid in _left(run.pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def look(tmp_path: Path) -> Look:
    return Look(f"sqlite:///{tmp_path / 'kmnist-search.db'}")


def test_a_worker_that_is_killed_is_replaced_and_the_budget_is_exact(
    tiny_study: Path, tmp_path: Path, look: Look
) -> None:
    run = Command(_command(4, 20), tmp_path)
    run.wait_for(lambda: look.attempts(0) != [])
    os.kill(look.attempts(0)[-1]["pid"], signal.SIGKILL)
    assert run.ended() == 0, run.output
    output = run.output
    assert "2 worker processes, each on one core" in output
    assert re.search(r"^worker [12] \(cpu\) was killed by SIGKILL", output, re.MULTILINE)
    assert "Done: 4 of 4 trials are finished." in output
    assert_exact(look, [run], trials=4, epochs=20)
    assert [look.hows(number) for number in range(4)] == [[PROCESS_DIED, "complete"], *[["complete"]] * 3]
    counts = [int(finished) for finished in FINISHED.findall(output)]
    assert counts == sorted(counts)
    assert counts[-1] == 4
    assert _leaves_nobody(run)


def test_interrupted_or_orphaned_workers_hand_their_trials_back(start: Callable[..., Forked], look: Look) -> None:
    run = start(3, 2000)
    wait_until(lambda: look.step(0) > 0 and look.step(1) > 0, run)
    _interrupt(run)
    assert run.ended() == 130, run.output
    assert run.output.count("handed back (with a checkpoint at step") == 2
    assert "Stopped: 0 of 3 trials are finished, none is left running here. To resume: kmnist-search run" in run.output
    assert _leaves_nobody(run)
    assert look.states() == {"WAITING": 3}

    orphaned = start(3, 2000)
    wait_until(lambda: orphaned.output.count("resumes after epoch") == 2, orphaned)
    orphaned.kill()
    assert _leaves_nobody(orphaned)
    assert look.states() == {"WAITING": 3}
    assert look.rows("SELECT * FROM kmnist_search_leases") == []
    for number in (0, 1):
        assert [str(how).startswith("handed back: SIG") for how in look.hows(number)] == [True, True]
        assert look.attempts(number)[1]["epochs"] >= look.attempts(number)[0]["epochs"] > 0


def test_a_worker_that_keeps_dying_ends_the_run_and_the_others_hand_back(
    start: Callable[..., Forked], look: Look
) -> None:
    run = start(4, 2000)
    wait_until(lambda: look.step(0) > 0 and look.step(1) > 0, run)
    victim, steady = _workers(run)
    known = {victim, steady}
    for _ in range(2):
        victim.send_signal(signal.SIGSEGV)
        wait_until(lambda: not known.issuperset(_workers(run)), run)
        (victim,) = set(_workers(run)) - known
        known.add(victim)
    victim.send_signal(signal.SIGSEGV)
    assert run.ended() == 1
    expected = (
        "Error: worker 1 (cpu) died 3 times in a row without finishing a trial, the last time it was killed by SIGSEGV"
    )
    assert expected in run.output
    assert run.output.count("worker 1 (cpu) was killed by SIGSEGV") == 3
    assert re.search(r"^\[0/4\] trial \d lost \(worker 1 was killed by SIGSEGV\)  val_acc", run.output, re.MULTILINE)
    assert re.search(r"^\[0/4\] trial \d handed back \(with a checkpoint", run.output, re.MULTILINE)
    assert "Traceback" not in run.output
    assert look.running() == 1  # of the dead; `status` or the next run puts it back
    assert _leaves_nobody(run)


def test_a_target_that_one_worker_reaches_stops_the_others_at_once(start: Callable[..., Forked], look: Look) -> None:
    run = start(6, 5, "--target", "0.2", "--json")
    assert run.ended() == 0, run.output
    told, _, printed = run.output.partition("\n{")
    assert json.loads("{" + printed)["stopped_by"] == "target"
    assert "The target is reached: " in told
    assert len(ENDED.findall(told)) in (1, 2)
    assert look.running() == 0


def _refuse(options: RunOptions) -> Search:
    raise ConfigError(f"no work on {options.device}")


def _break(options: RunOptions) -> Search:
    raise RuntimeError(f"nobody foresaw this on {options.device}")


@pytest.mark.parametrize(
    ("prepare_again", "error", "text"),
    [
        (_refuse, ConfigError, "^no work on cpu$"),
        (
            _break,
            WorkerDiedError,
            r"(?s)^worker 1 \(cpu\) failed unexpectedly\.\nTraceback .*RuntimeError: nobody foresaw this on cpu",
        ),
    ],
)
def test_an_error_of_a_worker_is_that_of_the_run(
    prepare_again: Callable[[RunOptions], Search],
    error: type[Exception],
    text: str,
    tiny_study: Path,
    storage_url: str,
    tmp_path: Path,
) -> None:
    options = RunOptions(storage_url=storage_url, trials=2, data_dir=tmp_path, device="cpu")
    search = prepare(load(tiny_study), options)
    with StopSignals() as signals:
        supervisor = Supervisor(search, prepare_again, [Place(device="cpu", cores=1)], signals=signals)
        with supervisor, pytest.raises(error, match=text):
            list(supervisor.work())


NO_KERNELS = Verdict(kernels="their interpreter is slow", graphs="")
ECC = "CUDA error: uncorrectable ECC error encountered"


def _on_stand_in_gpus(study_file: Path, broken: str, options: RunOptions) -> Search:
    """Prepare a worker on one of three stand-in GPUs, which this process has until it ends; one of them is broken."""
    gpu = StandInGpu(gpus=3, bfloat16=False).__enter__()
    verdict._known[verdict._name(torch.device(options.device))] = NO_KERNELS
    if options.device == broken:
        gpu.fail_after(0, torch.AcceleratorError(ECC), sticky=True)
    return prepare(load(study_file), options)


def test_a_gpu_that_loses_its_worker_three_times_is_left_out_and_the_others_finish(
    tiny_study: Path, storage_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RunOptions(storage_url=storage_url, trials=6, data_dir=tmp_path, gpus=(0, 2, 1))
    prepare_again = partial(_on_stand_in_gpus, tiny_study, "cuda:2")
    with StandInGpu(gpus=3), StopSignals() as signals:
        verdict._known[verdict._name(torch.device("cuda:0"))] = NO_KERNELS
        search = prepare(load(tiny_study), options)
        places = search.places(devices_of(options))
        assert [place.device for place in places] == ["cuda:0", "cuda:2", "cuda:1"]
        with Supervisor(search, prepare_again, places, signals=signals) as supervisor:
            events = list(supervisor.work())
    warnings = [event.text for event in events if isinstance(event, RunWarning)]
    assert sum(text.startswith("the Triton kernels are not used (") for text in warnings) == 1  # for GPUs of one model
    lost = f"worker 2 (cuda:2) lost its GPU: AcceleratorError: {ECC}; its trials go back to the queue"
    assert warnings.count(lost) == 3
    assert warnings[-1].startswith("cuda:2 is left out: its worker died 3 times in a row without finishing a trial")
    trials = search.study.optuna.trials
    assert [trial.state.is_finished() for trial in trials] == [True] * 6
    assert {trial.user_attrs["device"] for trial in trials} == {"Stand-in GPU"}
    assert supervisor.stopped_by == "budget"


def test_a_second_interrupt_ends_all_at_once(start: Callable[..., Forked], look: Look) -> None:
    run = start(2, 5000)
    wait_until(lambda: look.running() == 2, run)
    for worker in _workers(run):
        worker.suspend()  # it hears of nothing any more
    _interrupt(run)
    time.sleep(1)
    assert run.exit_code is None
    _interrupt(run)
    assert run.ended() == 130
    assert "Interrupted. To resume, run the same command again." in run.output
    assert "Traceback" not in run.output
    assert _leaves_nobody(run)
