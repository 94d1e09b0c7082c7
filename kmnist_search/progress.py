"""How far a study has come. Changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

from kmnist_search.attempts import ATTEMPTS_KEY
from kmnist_search.mirror import Mirror
from kmnist_search.queue import Counts
from kmnist_search.roster import Member
from kmnist_search.study import TRACEBACK_KEY, SearchStudy
from kmnist_search.trial_writer import REASON_KEY


@dataclass(frozen=True, kw_only=True)
class Running:
    """A trial at work: its number, who runs it, the last epoch it reported, and the metric there.

    `attempts` are those at this trial so far, the last one being at work; see `attempts.py`.
    """

    number: int
    epoch: int
    value: float | None
    attempts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class WorkerSeen:
    """A worker as it was last seen, so many seconds ago, and the numbers of the trials at work there.

    `finished` are those of its own; `trials_per_hour` is None before the first; if `is_gone`, it is most likely dead.
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
class Failure:
    """A trial that broke, or that could not even begin for lack of memory."""

    number: int
    outcome: Literal["failed", "pruned"]
    reason: str
    traceback: str


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a study has come. `trial_time` is how long a finished trial took on the mean."""

    name: str
    metric: str
    epochs: int
    counts: Counts
    best: FrozenTrial | None
    trial_time: timedelta | None

    @property
    def trials_per_hour(self) -> float | None:
        """At the pace of the finished trials, with as many at a time as run now (at least one)."""
        return 3600 / self.trial_time.total_seconds() * max(self.counts.running, 1) if self.trial_time else None

    def time_left(self, budget: int) -> timedelta | None:
        """Until `budget` trials are finished, at that pace."""
        left = max(budget - self.counts.finished, 0)
        return self.trial_time * left / max(self.counts.running, 1) if self.trial_time else None


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a study has come, who works on it, and what each of its trials that runs or broke is about."""

    progress: Progress
    workers: Sequence[WorkerSeen]
    running: Sequence[Running]
    failures: Sequence[Failure]


def status_of(study: SearchStudy) -> Status:
    """Return how a study stands in its database."""
    counts, trials = study.counts(), study.trials()
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    # A trial that was pruned without a value is infeasible, or diverged in its first epoch.
    failed = [trial for trial in trials if trial.state == TrialState.FAIL or _has_no_value(trial)]
    progress = _progress(study, counts, trials)
    study.with_details([*([progress.best] if progress.best else []), *running, *failed])
    return Status(
        progress=progress,
        workers=[_worker(member, running) for member in study.workers()],
        running=[_running(trial) for trial in running],
        failures=[_failure(trial) for trial in failed],
    )


def progress_seen_by(study: SearchStudy, mirror: Mirror, counts: Counts) -> Progress:
    """Return how far a study has come as a worker knows it, without asking the database."""
    return _progress(study, counts, mirror.get_all_trials(mirror.study_id, deepcopy=False))


def _progress(study: SearchStudy, counts: Counts, trials: Sequence[FrozenTrial]) -> Progress:
    times = [trial.duration for trial in trials if trial.duration is not None]
    ranked = study.ranked(trials)
    return Progress(
        name=study.name,
        metric=study.metric,
        epochs=study.epochs,
        counts=counts,
        best=ranked[0] if ranked else None,
        trial_time=sum(times, timedelta()) / len(times) if times else None,
    )


def _worker(member: Member, running: Sequence[FrozenTrial]) -> WorkerSeen:
    owner = asdict(member.owner)
    latest = {trial.number: (trial.user_attrs.get(ATTEMPTS_KEY) or [{}])[-1] for trial in running}
    return WorkerSeen(
        host=member.owner.host,
        pid=member.owner.pid,
        device=member.facts.device,
        job=member.facts.job,
        versions=member.facts.versions,
        trials=[number for number, attempt in latest.items() if owner.items() <= attempt.items()],
        finished=member.finished,
        trials_per_hour=member.trials_per_hour,
        unseen=member.unseen,
        is_gone=member.is_gone,
    )


def _running(trial: FrozenTrial) -> Running:
    epoch = trial.last_step or 0
    return Running(
        number=trial.number,
        epoch=epoch,
        value=trial.intermediate_values.get(epoch),
        attempts=trial.user_attrs.get(ATTEMPTS_KEY, []),
    )


def _has_no_value(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.PRUNED and not trial.values


def _failure(trial: FrozenTrial) -> Failure:
    return Failure(
        number=trial.number,
        outcome="failed" if trial.state == TrialState.FAIL else "pruned",
        reason=trial.user_attrs.get(REASON_KEY, "not known"),
        traceback=trial.user_attrs.get(TRACEBACK_KEY, ""),
    )
