"""The forecast of the time left, from the durations of recent trials, including pruned ones.

A slot runs one trial at a time. Durations are counted in slot time, so pauses and changes in the number of workers do
not distort them. Running trials count too: early on only short, pruned trials have ended, and their mean is too low.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from statistics import fmean

#: The fewest ended trials for a forecast.
MIN_TRIALS = 3
#: How many of the last ended trials are used: at least this many, or so many for each running trial.
RECENT, RECENT_PER_SLOT = 50, 2
#: The last trials of each slot are assigned one by one, to find which slot ends last.
ASSIGNED_PER_SLOT = 4


@dataclass(frozen=True, kw_only=True)
class EndedTrial:
    """When a trial ran, in seconds on any one clock."""

    began: float
    ended: float


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """Since when a trial has been running, on the same clock; `share` is the part that is done, None if unknown."""

    began: float
    share: float | None


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What to expect of a study's trials.

    Attributes:
        trial_seconds: mean slot time of a trial, including pruned ones.
        lengths: durations of the last trials in seconds, scaled so that their mean is `trial_seconds`.
        remaining: seconds left for each running trial.
    """

    trial_seconds: float
    lengths: Sequence[float]
    remaining: Sequence[float]

    def trials_per_hour(self, *, running: int) -> float:
        """Return how many trials end per hour with so many running at once (at least one)."""
        return 3600 / self.trial_seconds * max(running, 1)

    def seconds_left(self, *, unfinished: int, running: int) -> float:
        """Return the seconds until the last trial ends, if each free slot takes the next waiting trial at once.

        Args:
            unfinished: trials that are not over, including running ones.
            running: running trials; may be more than when the forecast was made.
        """
        fresh = [self.trial_seconds] * (running - len(self.remaining))
        slots = sorted([*self.remaining[:running], *fresh])[:unfinished] or [0.0] * min(unfinished, 1)
        if not slots:
            return 0.0
        waiting = max(unfinished - running, 0)
        assigned = min(waiting, ASSIGNED_PER_SLOT * len(slots))
        before = (waiting - assigned) * self.trial_seconds / len(slots)
        heapify(slots)
        for turn in range(assigned):
            heapreplace(slots, slots[0] + self.lengths[turn % len(self.lengths)])
        return before + max(slots)


@dataclass(frozen=True, kw_only=True)
class TimedTraining:
    """A training of known length that has begun: its epochs, those done, and their seconds, None if unknown."""

    epochs: int
    done: int
    seconds: float | None


def forecast_of_plan(
    ended: Sequence[TimedTraining], at_work: Sequence[TimedTraining], waiting: Sequence[int]
) -> Forecast | None:
    """Return the forecast for trainings that are all known beforehand; None before the first epoch is over.

    Args:
        ended: the trainings that are over.
        at_work: the running ones.
        waiting: the epochs of those that have not begun.
    """
    timed = [(each.seconds, each.done) for each in (*ended, *at_work) if each.seconds is not None and each.done]
    if not timed:
        return None
    pace = sum(seconds for seconds, _ in timed) / sum(done for _, done in timed)
    lengths = [pace * epochs for epochs in waiting or [each.epochs for each in (*ended, *at_work)]]
    return Forecast(
        trial_seconds=fmean(lengths),
        lengths=tuple(lengths),
        remaining=tuple(pace * (each.epochs - each.done) for each in at_work),
    )


def num_recent(at_work: int) -> int:
    """Return how many of the last ended trials are used when so many are running."""
    # One more than those counted: its end is the start of the period.
    return max(RECENT, RECENT_PER_SLOT * at_work) + 1


def forecast(ended: Sequence[EndedTrial], at_work: Sequence[RunningTrial], *, now: float) -> Forecast | None:
    """Return the forecast from these trials; None if they are too few.

    Args:
        ended: the trials that are over, at least the last ones, see `num_recent`.
        at_work: the running trials.
        now: on the same clock.
    """
    last = sorted(ended, key=lambda each: each.ended)[-num_recent(len(at_work)) :]
    is_cut = len(last) == num_recent(len(at_work))
    recent, since = (last[1:], last[0].ended) if is_cut else (last, float("-inf"))
    work = sum(max(each.ended - max(each.began, since), 0.0) for each in recent)
    work += sum(max(now - max(each.began, since), 0.0) for each in at_work)
    if len(recent) < MIN_TRIALS or work <= 0:
        return None
    trial_seconds = work / len(recent)
    lengths = [max(each.ended - each.began, 0.0) for each in recent]
    mean = fmean(lengths)
    return Forecast(
        trial_seconds=trial_seconds,
        lengths=tuple(length * trial_seconds / mean for length in lengths) if mean else (trial_seconds,),
        remaining=tuple(_remaining(each, now, lengths, trial_seconds) for each in at_work),
    )


def _remaining(trial: RunningTrial, now: float, lengths: Sequence[float], trial_seconds: float) -> float:
    """Return the mean remaining time of past trials that took longer, limited by the trial's own remaining epochs."""
    done = max(now - trial.began, 0.0)
    longer = [length for length in lengths if length > done]
    guesses = [fmean(longer) - done] if longer else []
    if trial.share:
        guesses.append(done / trial.share * (1 - trial.share))
    return min(guesses, default=trial_seconds)
