"""The trials of a study as plain values for charts and tables.

Imported or copied trials may lack any attribute; unknown values are left out.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from kmnist_search.database.trial_writer import REASON_KEY
from kmnist_search.queue.attempts import ATTEMPTS_KEY, PAUSED
from kmnist_search.study.study import SearchStudy

#: The number of trials whose details are read at once; databases limit the values in one statement.
TRIALS_AT_ONCE = 1000

#: The outcomes of an attempt, in the order of a legend.
OUTCOMES = ("complete", "pruned", "failed", "running", "handed back", "lost")


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchHistory:
    """The finished trials, ordered by their ends.

    Attributes:
        numbers: (N,), of the trials.
        values: (N,), nan unless complete.
        best: (N,), the best value until then; nan before the first.
        seconds: (N,), training time of this trial and all before; unknown times count as 0.
        num_untimed: number of trials with unknown training time.
    """

    numbers: NDArray[np.int32]
    values: NDArray[np.float64]
    best: NDArray[np.float64]
    seconds: NDArray[np.float64]
    num_untimed: int


@dataclass(frozen=True, kw_only=True)
class PruningSavings:
    """Training that pruning saved: the number of pruned trials, and the seconds saved."""

    num_trials: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TimedAttempt:
    """One worker's attempt at a trial. Times are milliseconds since 1970; `outcome` is one of OUTCOMES."""

    worker: str
    number: int
    began: float
    ended: float
    outcome: str


def read(study: SearchStudy) -> list[FrozenTrial]:
    """Return the running and finished trials with all their details."""
    trials = study.trials()
    for start in range(0, len(trials), TRIALS_AT_ONCE):
        study.with_details(trials[start : start + TRIALS_AT_ONCE])
    return trials


def complete(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the complete trials with a finite value."""
    return [trial for trial in trials if trial.state == TrialState.COMPLETE and math.isfinite(trial.values[0])]


def history(trials: Sequence[FrozenTrial], direction: StudyDirection) -> SearchHistory:
    """Return the finished trials, ordered by their ends."""
    finished = [trial for trial in trials if trial.state.is_finished()]
    finished.sort(key=lambda trial: (trial.datetime_complete or datetime.max, trial.number))
    known = {trial.number for trial in complete(finished)}
    values = np.array([trial.values[0] if trial.number in known else np.nan for trial in finished], dtype=float)
    better = np.fmax if direction == StudyDirection.MAXIMIZE else np.fmin
    times = [_seconds(trial) for trial in finished]
    return SearchHistory(
        numbers=np.array([trial.number for trial in finished], dtype=np.int32),
        values=values,
        best=better.accumulate(values) if len(values) else values,
        seconds=np.cumsum([time or 0.0 for time in times]),
        num_untimed=times.count(None),
    )


def thinned(history: SearchHistory, most: int, direction: StudyDirection) -> SearchHistory:
    """Return a history with only the `most` best trials, the last trial, and each trial that was the best so far."""
    if len(history.numbers) <= most:
        return history
    worst_last = -history.values if direction == StudyDirection.MAXIMIZE else history.values
    kept = np.zeros(len(history.numbers), dtype=bool)
    kept[np.argsort(worst_last, kind="stable")[:most]] = True  # nan, for trials without a value, sorts last
    kept[-1] = True
    kept |= history.values == history.best
    arrays = {name: getattr(history, name)[kept] for name in ("numbers", "values", "best", "seconds")}
    return replace(history, **arrays)


def seconds_by_outcome(trials: Sequence[FrozenTrial]) -> dict[str, tuple[int, float]]:
    """Return the number of complete, pruned and failed trials, and their training seconds."""
    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    found = {}
    for name, state in states.items():
        times = [_seconds(trial) or 0.0 for trial in trials if trial.state == state]
        found[name] = (len(times), sum(times))
    return found


def clock_name(trials: Sequence[FrozenTrial]) -> str:
    """Return the name of the clock of these trials: GPU seconds if each of them ran on a GPU."""
    devices = {str(trial.user_attrs["device"]) for trial in trials if "device" in trial.user_attrs}
    on_gpu = bool(devices) and not any(device.startswith("CPU") for device in devices)
    return "GPU-seconds" if on_gpu else "training seconds"


def saved(trials: Sequence[FrozenTrial], epochs: int) -> PruningSavings:
    """Return what pruning saved: for each pruned trial, its seconds per epoch times the epochs not run.

    A diverged trial is not counted, because it would have ended without a pruner too.
    """
    found = []
    for trial in trials:
        done, time = len(trial.intermediate_values), _seconds(trial)
        diverged = str(trial.user_attrs.get(REASON_KEY, "")).startswith("diverged")
        if trial.state == TrialState.PRUNED and done and time is not None and not diverged:
            found.append(time / done * max(epochs - done, 0))
    return PruningSavings(num_trials=len(found), seconds=sum(found))


def failures(trials: Sequence[FrozenTrial]) -> dict[str, list[int]]:
    """Return why trials failed, with the numbers of the trials; the most frequent reason first."""
    numbers = defaultdict(list)
    for trial in trials:
        if trial.state == TrialState.FAIL:
            numbers[str(trial.user_attrs.get(REASON_KEY, "not known"))].append(trial.number)
    return dict(sorted(numbers.items(), key=lambda item: -len(item[1])))


def attempts(trials: Sequence[FrozenTrial], now: datetime) -> list[TimedAttempt]:
    """Return who worked on which trial and when; an attempt with unknown end is left out unless it is running."""
    found = []
    for trial in trials:
        known = trial.user_attrs.get(ATTEMPTS_KEY, [])
        for attempt in known:
            is_running = attempt is known[-1] and trial.state == TrialState.RUNNING
            ended = attempt.get("ended_at") or (now.isoformat() if is_running else None)
            if ended and {"host", "pid", "began_at"} <= attempt.keys():
                found.append(
                    TimedAttempt(
                        worker=f"{attempt['host']} {attempt['pid']}",
                        number=trial.number,
                        began=_milliseconds(attempt["began_at"]),
                        ended=_milliseconds(ended),
                        outcome=_outcome(attempt),
                    )
                )
    return sorted(found, key=lambda attempt: attempt.began)


def searched(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Return the hyperparameters with more than one choice, with the distribution in the last trial that has them."""
    distributions = {name: spec for trial in trials for name, spec in trial.distributions.items()}
    return {name: spec for name, spec in distributions.items() if not spec.single()}


def _seconds(trial: FrozenTrial) -> float | None:
    time: Any = trial.user_attrs.get("seconds")
    return float(time) if isinstance(time, int | float) else None


def _milliseconds(time: str) -> float:
    moment = datetime.fromisoformat(time)
    return 1000 * (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _outcome(attempt: Mapping[str, Any]) -> str:
    how = str(attempt.get("how", "running"))
    if how.startswith("handed back"):
        return "handed back"
    how = {"fail": "failed"}.get(how, how)
    if how == PAUSED:
        return "pruned"
    return how if how in OUTCOMES else "lost"
