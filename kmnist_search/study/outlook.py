"""What more trials of a study may gain, from how its best trial became better so far."""

from collections.abc import Sequence
from dataclasses import dataclass

from kmnist_search.study.forecast import Forecast

#: The fewest trials that tell how fast the best becomes better, and how many times as many they can tell of.
MIN_TRIALS, FORESEEN = 12, 3


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What the next hour may bring: so many more trials, and what they are expected to gain of the best metric."""

    trials: int
    gain: float


def outlook(bests: Sequence[float], forecast: Forecast | None, *, running: int) -> Outlook | None:
    """Return what one more hour may gain at the recent pace; None while too little is known.

    Args:
        bests: the best metric after each trial that is over.
        forecast: of the study.
        running: trials that run now.
    """
    if forecast is None or len(bests) < MIN_TRIALS:
        return None
    trials = round(forecast.trials_per_hour(running=running))
    if trials > FORESEEN * len(bests):
        return None
    return Outlook(trials=trials, gain=expected_gain(bests, trials))


def expected_gain(bests: Sequence[float], more: int) -> float:
    """Return by how much the best metric is expected to become better with `more` trials.

    Each doubling of the trials is taken to gain half of what the last one gained. In simulated searches that is right
    within a factor of two on average (tests/benchmarks/LOG.md).

    Args:
        bests: the best metric after each trial that is over.
        more: number of further trials.
    """
    total = len(bests)
    last_doubling = abs(bests[-1] - bests[total // 2 - 1])
    return last_doubling * more / (total + more)
