"""The status of a study: counts, running trials, workers, failures, best trial."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

from kmnist_search.database.trial_writer import REASON_KEY
from kmnist_search.host.process import Owner
from kmnist_search.queue.attempts import ATTEMPTS_KEY
from kmnist_search.queue.halt import Halt
from kmnist_search.queue.queue import Counts
from kmnist_search.queue.workers import RegisteredWorker
from kmnist_search.study.cached_storage import CachedStorage
from kmnist_search.study.forecast import (
    EndedTrial,
    Forecast,
    RunningTrial,
    TimedTraining,
    forecast,
    forecast_of_plan,
    num_recent,
)
from kmnist_search.study.halving import rung_of
from kmnist_search.study.outlook import Outlook, outlook
from kmnist_search.study.patience import noise_of
from kmnist_search.study.study import TRACEBACK_KEY, SearchStudy
from kmnist_search.study.trial_rows import state_of

#: How many of the trials that ended last are shown.
RECENT_TRIALS = 8


@dataclass(frozen=True, kw_only=True)
class Running:
    """A running trial: its number, its worker, the last reported epoch, the number of epochs, and the metric there.

    `attempts` are all attempts at this trial; the last one has been running for `seconds` (None if unknown), see
    `queue/attempts.py`. `reports` are the metric by epoch. `is_ahead` says whether the last one is better than the best
    trial's at the same epoch.
    """

    number: int
    epoch: int
    epochs: int
    value: float | None
    attempts: Sequence[Mapping[str, Any]]
    seconds: float | None
    params: Mapping[str, Any]
    reports: Mapping[int, float]
    is_ahead: bool


@dataclass(frozen=True, kw_only=True)
class FinishedTrial:
    """A trial that has ended: the metric after its last epoch, and how long it was trained.

    `reason` says why a trial failed.
    """

    number: int
    outcome: str
    value: float | None
    epochs: int
    seconds: float | None
    params: Mapping[str, Any]
    reason: str


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """A worker as last seen, so many seconds ago, and the numbers of its running trials.

    `finished` counts its own trials; `trials_per_hour` is None before the first. With `is_gone` it is most likely dead.
    """

    host: str
    pid: int
    device: str
    job: str | None
    versions: Mapping[str, str]
    trials: Sequence[int]
    finished: int
    trials_per_hour: float | None
    unseen: float
    is_gone: bool


@dataclass(frozen=True, kw_only=True)
class TrialFailure:
    """A trial that failed, or could not start for lack of memory."""

    number: int
    outcome: Literal["failed", "pruned"]
    reason: str
    traceback: str


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a study has come, and its forecast, which is None while too few trials are over, as of the time `at`.

    `total` is the number of its trials, with planned trainings that are queued later. `paused` counts the pruned trials
    that may resume. `best` is None while no trial is complete, and for planned trainings, whose accuracies are of
    different images.
    """

    name: str
    metric: str
    epochs: int
    counts: Counts
    total: int
    is_plan: bool
    best: FrozenTrial | None
    forecast: Forecast | None
    at: datetime = field(compare=False)
    paused: int = 0

    @property
    def trials_per_hour(self) -> float | None:
        """Trials per hour at the recent pace, with as many at once as run now (at least one)."""
        return self.forecast.trials_per_hour(running=self.counts.running) if self.forecast else None

    def time_left(self, budget: int) -> timedelta | None:
        """The time until `budget` trials are finished, at that pace."""
        if self.forecast is None:
            return None
        unfinished = max(budget - self.counts.finished, 0)
        return timedelta(seconds=self.forecast.seconds_left(unfinished=unfinished, running=self.counts.running))


@dataclass(frozen=True, kw_only=True)
class Status:
    """The status of a study: its progress, its workers, its running and failed trials.

    `recent` are the trials that ended last, the newest last.
    `bests` are the best metric after each trial that is over, in order of their ends, from the first complete trial on.
    `outlook` is None while too little is known, `noise` while no configuration was repeated, see `patience.py`, and
    `halt` while the study may be worked on.
    """

    progress: Progress
    bests: Sequence[float]
    workers: Sequence[WorkerStatus]
    running: Sequence[Running]
    recent: Sequence[FinishedTrial]
    failures: Sequence[TrialFailure]
    outlook: Outlook | None = None
    noise: float | None = None
    halt: Halt | None = None


def status_of(study: SearchStudy) -> Status:
    """Return the status of a study from its database."""
    return status_from(study, study.counts(), study.trials())


def status_from(study: SearchStudy, counts: Counts, trials: Sequence[FrozenTrial]) -> Status:
    """Return the status of a study from its running and finished trials; missing details of some are read and added."""
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    # A pruned trial without a value is infeasible, or diverged in its first epoch.
    failed = [trial for trial in trials if trial.state == TrialState.FAIL or _has_no_value(trial)]
    best = [] if study.is_plan else study.ranked(trials)[:1]
    ended = sorted((trial for trial in trials if trial.datetime_complete is not None), key=_ended_at)
    recent = ended[-RECENT_TRIALS:]
    # Finished trials do not change any more, so their details may be from an earlier read.
    without = {trial.number: trial for trial in [*best, *failed, *recent] if not trial.user_attrs}
    study.with_details([*running, *without.values()])
    progress, bests = _progress(study, counts, trials), _bests(study, trials)
    return Status(
        progress=progress,
        bests=bests,
        workers=_workers(study.workers(), running),
        running=[_running(study, trial, best) for trial in running],
        recent=[_finished(trial) for trial in recent],
        failures=[_failure(trial) for trial in failed],
        outlook=outlook(bests, progress.forecast, running=counts.running),
        noise=None if study.is_plan else noise_of(trials),
        halt=study.halt(),
    )


def progress_of_worker(study: SearchStudy, cached_storage: CachedStorage, counts: Counts) -> Progress:
    """Return the progress of a study as a worker knows it, without reading the database."""
    return _progress(study, counts, cached_storage.get_all_trials(cached_storage.study_id, deepcopy=False))


def _progress(study: SearchStudy, counts: Counts, trials: Sequence[FrozenTrial]) -> Progress:
    ranked = study.ranked(trials)
    return Progress(
        name=study.name,
        metric=study.metric,
        epochs=study.epochs,
        counts=counts,
        total=study.total(counts),
        is_plan=study.is_plan,
        best=ranked[0] if ranked and not study.is_plan else None,
        forecast=_forecast(study, trials),
        at=datetime.now(),
        paused=sum(rung_of(trial) is not None for trial in trials),
    )


def _forecast(study: SearchStudy, trials: Sequence[FrozenTrial]) -> Forecast | None:
    if (planned := study.planned_epochs) is not None:
        return _forecast_of_plan(study, trials, planned)
    at_work = [_at_work(trial, study.epochs_of(trial.params)) for trial in trials if trial.state == TrialState.RUNNING]
    over = [trial for trial in trials if trial.datetime_start is not None and trial.datetime_complete is not None]
    over.sort(key=attrgetter("datetime_complete"))
    ended = [
        EndedTrial(began=_seconds(trial.datetime_start), ended=_seconds(trial.datetime_complete))
        for trial in over[-num_recent(len(at_work)) :]
    ]
    return forecast(ended, at_work, now=_seconds(datetime.now()))


def _forecast_of_plan(study: SearchStudy, trials: Sequence[FrozenTrial], planned: Sequence[int]) -> Forecast | None:
    begun = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.RUNNING)]
    trainings = {trial.number: _timed(trial, study.epochs_of(trial.params)) for trial in begun}
    ended = [trainings[trial.number] for trial in begun if trial.state == TrialState.COMPLETE]
    at_work = [trainings[trial.number] for trial in begun if trial.state == TrialState.RUNNING]
    waiting = Counter(planned) - Counter(each.epochs for each in trainings.values())
    return forecast_of_plan(ended, at_work, list(waiting.elements()))


def _timed(trial: FrozenTrial, epochs: int) -> TimedTraining:
    seconds = _seconds(trial.datetime_complete) - _seconds(trial.datetime_start)
    done = epochs if trial.state == TrialState.COMPLETE else trial.last_step or 0
    return TimedTraining(epochs=epochs, done=done, seconds=seconds if _is_first(trial) else None)


def _at_work(trial: FrozenTrial, epochs: int) -> RunningTrial:
    share = trial.last_step / epochs if trial.last_step and _is_first(trial) else None
    return RunningTrial(began=_seconds(trial.datetime_start), share=share)


def _is_first(trial: FrozenTrial) -> bool:
    """Return whether it is the first attempt at a trial: a later one may begin where an earlier one ended."""
    return len(trial.user_attrs.get(ATTEMPTS_KEY, ())) <= 1


def _seconds(local: datetime | None) -> float:
    """Return a local time in seconds since 1970; None gives the present time."""
    return (local or datetime.now()).timestamp()


def _bests(study: SearchStudy, trials: Sequence[FrozenTrial]) -> list[float]:
    bests: list[float] = []
    for trial in sorted((trial for trial in trials if trial.datetime_complete is not None), key=_ended_at):
        value = trial.values[0] if trial.state == TrialState.COMPLETE else None
        if value is not None and (not bests or study.is_as_good(value, bests[-1])):
            bests.append(value)
        elif bests:
            bests.append(bests[-1])
    return bests


def _workers(members: Sequence[RegisteredWorker], running: Sequence[FrozenTrial]) -> list[WorkerStatus]:
    names = [each.name for each in fields(Owner)]
    at_work: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
    for trial in running:
        attempt = (trial.user_attrs.get(ATTEMPTS_KEY) or [{}])[-1]
        at_work[tuple(attempt.get(name) for name in names)].append(trial.number)
    return [_worker(member, at_work[tuple(getattr(member.owner, name) for name in names)]) for member in members]


def _worker(member: RegisteredWorker, trials: Sequence[int]) -> WorkerStatus:
    return WorkerStatus(
        host=member.owner.host,
        pid=member.owner.pid,
        device=member.info.device,
        job=member.info.job,
        versions=member.info.versions,
        trials=trials,
        finished=member.finished,
        trials_per_hour=member.trials_per_hour,
        unseen=member.unseen,
        is_gone=member.is_gone,
    )


def _running(study: SearchStudy, trial: FrozenTrial, best: Sequence[FrozenTrial]) -> Running:
    epoch = trial.last_step or 0
    value = trial.intermediate_values.get(epoch)
    then = best[0].intermediate_values.get(epoch) if best else None
    return Running(
        number=trial.number,
        epoch=epoch,
        epochs=study.epochs_of(trial.params),
        value=value,
        attempts=trial.user_attrs.get(ATTEMPTS_KEY, []),
        seconds=None if trial.datetime_start is None else (datetime.now() - trial.datetime_start).total_seconds(),
        params=trial.params,
        reports=trial.intermediate_values,
        is_ahead=value is not None and then is not None and study.is_better(value, then),
    )


def _ended_at(trial: FrozenTrial) -> tuple[datetime, int]:
    assert trial.datetime_complete is not None
    return trial.datetime_complete, trial.number


def _finished(trial: FrozenTrial) -> FinishedTrial:
    return FinishedTrial(
        number=trial.number,
        outcome=state_of(trial),
        value=trial.values[0] if trial.values else None,
        epochs=trial.last_step or 0,
        seconds=trial.user_attrs.get("seconds"),
        params=trial.params,
        reason=trial.user_attrs.get(REASON_KEY, ""),
    )


def _has_no_value(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.PRUNED and not trial.values


def _failure(trial: FrozenTrial) -> TrialFailure:
    return TrialFailure(
        number=trial.number,
        outcome="failed" if trial.state == TrialState.FAIL else "pruned",
        reason=trial.user_attrs.get(REASON_KEY, "not known"),
        traceback=trial.user_attrs.get(TRACEBACK_KEY, ""),
    )
