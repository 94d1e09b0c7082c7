"""Studies as they are seen at a moment, made up, for the pictures of a study that is watched."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from kmnist_search.queue.queue import Counts
from kmnist_search.study.forecast import Forecast
from kmnist_search.study.status import (
    RECENT_TRIALS,
    FinishedTrial,
    Progress,
    Running,
    Status,
    TrialFailure,
    WorkerStatus,
)

NOW = datetime(2026, 11, 21, 14, 3, 22)
EPOCHS = 30
PARAMS: Mapping[str, Any] = {
    "batch_size": 128,
    "learning_rate": 0.00599973,
    "weight_decay": 0.0323066,
    "patch_size": 14,
    "dim": 96,
    "token_width": 32,
    "channel_width": 96,
    "num_blocks": 2,
}
REASONS = (
    "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB on a GPU of 140 GiB",
    "RuntimeError: CUDA error: an illegal memory access was encountered",
    "lost 4 times, the last time because its lease ran out (120 s)",
)


def curve(epochs: int, *, top: float = 0.97) -> dict[int, float]:
    return {epoch: top - 0.5 / (epoch + 1) for epoch in range(1, epochs + 1)}


def best_trial(number: int = 17) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        state=TrialState.COMPLETE,
        value=0.9697,
        datetime_start=NOW,
        datetime_complete=NOW + timedelta(seconds=19),
        params=dict(PARAMS),
        distributions={},
        user_attrs={"num_parameters": 58674, "seconds": 18.6},
        system_attrs={},
        intermediate_values=curve(EPOCHS),
        trial_id=number,
    )


def running(number: int, *, epoch: int, attempts: int = 1) -> Running:
    reports = curve(epoch, top=0.95 + number % 5 / 100)
    return Running(
        number=number,
        epoch=epoch,
        epochs=EPOCHS,
        value=reports.get(epoch),
        attempts=[{"host": "node7", "pid": 100 + number}] * attempts,
        seconds=4.0 * epoch + number % 7,
        params=PARAMS,
        reports=reports,
        is_ahead=epoch > 0 and reports[epoch] > curve(epoch)[epoch],
    )


def worker(index: int, trials: Sequence[int], *, is_gone: bool = False) -> WorkerStatus:
    return WorkerStatus(
        host=f"node{index}",
        pid=14301 + index,
        device="NVIDIA H200",
        job=f"4711_{index}",
        versions={},
        trials=trials,
        finished=3 * index,
        trials_per_hour=41.5 if index else None,
        unseen=200.0 if is_gone else 3.0 + index % 8,
        is_gone=is_gone,
    )


def failure(number: int) -> TrialFailure:
    reason = REASONS[number % len(REASONS)].replace("2.50", f"{number}.25")
    return TrialFailure(number=number, outcome="failed", reason=reason, traceback="Traceback ...")


def finished(number: int) -> FinishedTrial:
    outcome = ("complete", "paused", "pruned", "failed")[number % 4]
    return FinishedTrial(
        number=number,
        outcome=outcome,
        value=None if outcome == "failed" else 0.93 + number % 7 / 200,
        epochs=3 + number % 4,
        seconds=14.0 + number,
        params=PARAMS,
        reason=REASONS[0] if outcome == "failed" else "",
    )


def bests(count: int) -> list[float]:
    return [0.9697 - 0.1 / (1 + index // 6) for index in range(count)]


def status(
    *,
    counts: Counts,
    at_work: Sequence[Running] = (),
    workers: Sequence[WorkerStatus] = (),
    failures: Sequence[TrialFailure] = (),
    trial_seconds: float | None = 60.0,
) -> Status:
    remaining = tuple(30.0 for _ in at_work)
    forecast = trial_seconds and Forecast(trial_seconds=trial_seconds, lengths=(trial_seconds,), remaining=remaining)
    return Status(
        progress=Progress(
            name="kmnist",
            metric="val_accuracy",
            epochs=EPOCHS,
            counts=counts,
            total=counts.total,
            is_plan=False,
            best=best_trial() if counts.complete else None,
            forecast=forecast or None,
            at=NOW,
        ),
        bests=bests(counts.finished) if counts.complete else [],
        workers=workers,
        running=at_work,
        recent=[finished(number) for number in range(max(counts.finished - RECENT_TRIALS, 0), counts.finished)],
        failures=failures,
    )


def just_begun() -> Status:
    at_work = [running(0, epoch=0), running(1, epoch=1)]
    workers = [worker(0, [0]), worker(1, [1])]
    return status(counts=Counts(running=2, waiting=98), at_work=at_work, workers=workers, trial_seconds=None)


def in_the_middle(*, failures: int = 0) -> Status:
    at_work = [running(number, epoch=number % EPOCHS) for number in range(40, 44)]
    at_work.append(running(44, epoch=3, attempts=2))
    return status(
        counts=Counts(complete=20, pruned=20, fail=failures, running=5, waiting=55),
        at_work=at_work,
        workers=[worker(index, [40 + index]) for index in range(4)] + [worker(9, [44], is_gone=True)],
        failures=[failure(number) for number in range(failures)],
    )


def huge() -> Status:
    return status(
        counts=Counts(complete=300, pruned=404, fail=40, running=256, waiting=0),
        at_work=[running(number, epoch=number % EPOCHS + 1) for number in range(744, 1000)],
        workers=[worker(index, [744 + index]) for index in range(256)],
        failures=[failure(number) for number in range(0, 400, 10)],
    )


def over() -> Status:
    return status(counts=Counts(complete=48, pruned=50, fail=2), failures=[failure(5), failure(80)])
