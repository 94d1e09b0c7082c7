"""How far a study has come. Changes nothing."""

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from optuna.trial import FrozenTrial, TrialState

from kmnist_search.queue import OWNER_KEY, REASON_KEY, Counts, Owner
from kmnist_search.study import TRACEBACK_KEY, SearchStudy


@dataclass(frozen=True, kw_only=True)
class Running:
    """A trial at work: its number, who runs it, the last epoch it reported, and the metric there."""

    number: int
    owner: Owner | None
    epoch: int
    value: float | None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A trial that broke."""

    number: int
    reason: str
    traceback: str


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a study has come."""

    name: str
    metric: str
    epochs: int
    counts: Counts
    best: FrozenTrial | None
    running: tuple[Running, ...]
    failures: tuple[Failure, ...]
    trial_time: timedelta | None

    @property
    def trials_per_hour(self) -> float | None:
        """At the pace of the finished trials, with as many at a time as run now (at least one)."""
        return 3600 / self.trial_time.total_seconds() * max(len(self.running), 1) if self.trial_time else None

    def time_left(self, budget: int) -> timedelta | None:
        """Until `budget` trials are finished, at that pace."""
        left = max(budget - self.counts.finished, 0)
        return self.trial_time * left / max(len(self.running), 1) if self.trial_time else None


def progress_of(study: SearchStudy) -> Progress:
    """Return how far the study has come."""
    trials = study.optuna.get_trials(deepcopy=False)
    finished = [trial for trial in trials if trial.state.is_finished()]
    times = [trial.duration for trial in finished if trial.duration is not None]
    ranked = study.ranked()
    return Progress(
        name=study.name,
        metric=study.metric,
        epochs=study.epochs,
        counts=Counts(**Counter(trial.state.name.lower() for trial in trials)),
        best=ranked[0] if ranked else None,
        running=tuple(_running(trial) for trial in trials if trial.state == TrialState.RUNNING),
        failures=tuple(_failure(trial) for trial in finished if trial.state == TrialState.FAIL),
        trial_time=sum(times, timedelta()) / len(times) if times else None,
    )


def _running(trial: FrozenTrial) -> Running:
    owner = trial.user_attrs.get(OWNER_KEY)
    epoch = trial.last_step or 0
    return Running(
        number=trial.number,
        owner=Owner(**owner) if owner else None,
        epoch=epoch,
        value=trial.intermediate_values.get(epoch),
    )


def _failure(trial: FrozenTrial) -> Failure:
    return Failure(
        number=trial.number,
        reason=trial.user_attrs.get(REASON_KEY, "not known"),
        traceback=trial.user_attrs.get(TRACEBACK_KEY, ""),
    )
