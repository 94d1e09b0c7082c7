"""The forecast of the time left, from how long recent trials took, pruned ones included.

A slot is what works on one trial at a time. What trials took is counted in the time of slots, so that neither a pause
of all workers nor one that comes or goes distorts it, and that of trials at work counts, too: while only the pruned,
short ones have ended, a mean of those that ended would promise too much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from statistics import fmean

#: With fewer trials ended, nothing is promised.
BASIS = 3
#: The trials ended last that are looked at, and how many for each one at work, if those are more.
RECENT, RECENT_A_SLOT = 50, 2
#: So many trials a slot before the end are dealt out one by one, to see which slot has the last one.
DEALT_A_SLOT = 4


@dataclass(frozen=True, kw_only=True)
class Ended:
    """When a trial was at work, in seconds on any one clock."""

    began: float
    ended: float


@dataclass(frozen=True, kw_only=True)
class AtWork:
    """Since when a trial has been at work, on the same clock; `share` is how far it is on its way, None not known."""

    began: float
    share: float | None


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What is to be expected of the trials of a study.

    Attributes:
        trial_seconds: time of one slot that a trial takes, pruned ones as they come.
        lengths: seconds that the last ones took, made longer or shorter so that `trial_seconds` is their mean.
        remaining: seconds that each trial at work still takes.
    """

    trial_seconds: float
    lengths: Sequence[float]
    remaining: Sequence[float]

    def trials_per_hour(self, *, running: int) -> float:
        """Return how many trials end in an hour with so many at a time (at least one)."""
        return 3600 / self.trial_seconds * max(running, 1)

    def seconds_left(self, *, unfinished: int, running: int) -> float:
        """Return when the last trial ends if each slot takes the next waiting one as soon as it is free.

        Args:
            unfinished: trials that are not over, those at work among them.
            running: trials at work, maybe more than when this was made.
        """
        fresh = [self.trial_seconds] * (running - len(self.remaining))
        slots = sorted([*self.remaining[:running], *fresh])[:unfinished] or [0.0] * min(unfinished, 1)
        if not slots:
            return 0.0
        waiting = max(unfinished - running, 0)
        dealt = min(waiting, DEALT_A_SLOT * len(slots))
        before = (waiting - dealt) * self.trial_seconds / len(slots)
        heapify(slots)
        for turn in range(dealt):
            heapreplace(slots, slots[0] + self.lengths[turn % len(self.lengths)])
        return before + max(slots)


def looked_at(at_work: int) -> int:
    """Return how many of the trials that ended last are looked at where so many are at work."""
    # Besides those that are counted, the one before them tells since when.
    return max(RECENT, RECENT_A_SLOT * at_work) + 1


def forecast(ended: Sequence[Ended], at_work: Sequence[AtWork], *, now: float) -> Forecast | None:
    """Return what is to be expected after these trials; None if they are no basis.

    Args:
        ended: the trials that are over, at least the last ones, see `looked_at`.
        at_work: those that run.
        now: on the same clock.
    """
    last = sorted(ended, key=lambda each: each.ended)[-looked_at(len(at_work)) :]
    is_cut = len(last) == looked_at(len(at_work))
    recent, since = (last[1:], last[0].ended) if is_cut else (last, float("-inf"))
    work = sum(max(each.ended - max(each.began, since), 0.0) for each in recent)
    work += sum(max(now - max(each.began, since), 0.0) for each in at_work)
    if len(recent) < BASIS or work <= 0:
        return None
    trial_seconds = work / len(recent)
    lengths = [max(each.ended - each.began, 0.0) for each in recent]
    mean = fmean(lengths)
    return Forecast(
        trial_seconds=trial_seconds,
        lengths=tuple(length * trial_seconds / mean for length in lengths) if mean else (trial_seconds,),
        remaining=tuple(_remaining(each, now, lengths, trial_seconds) for each in at_work),
    )


def _remaining(trial: AtWork, now: float, lengths: Sequence[float], trial_seconds: float) -> float:
    """Return how much longer than it already took those took that took longer; never more than its way to the end."""
    done = max(now - trial.began, 0.0)
    longer = [length for length in lengths if length > done]
    guesses = [fmean(longer) - done] if longer else []
    if trial.share:
        guesses.append(done / trial.share * (1 - trial.share))
    return min(guesses, default=trial_seconds)
