"""What more trials of a study may gain, from how its best trial became better so far."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kmnist_search.study.forecast import Forecast

#: The fewest trials that tell how fast the best becomes better, and how many times as many they can tell of.
MIN_TRIALS, FORESEEN = 12, 3


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What the next hour may bring: so many more trials, and what they may gain of the best metric, rather too much."""

    trials: int
    gain: float


def outlook(bests: Sequence[float], forecast: Forecast | None, *, running: int, maximizes: bool) -> Outlook | None:
    """Return what one more hour may gain at the recent pace; None while too little is known.

    Args:
        bests: the best metric after each trial that is over: an accuracy if it is maximized, else a loss.
        forecast: of the study.
        running: trials that run now.
        maximizes: whether a higher metric is better.
    """
    if forecast is None or len(bests) < MIN_TRIALS:
        return None
    trials = round(forecast.trials_per_hour(running=running))
    if trials > FORESEEN * len(bests):
        return None
    errors = [1 - best for best in bests] if maximizes else list(bests)
    return Outlook(trials=trials, gain=expected_gain(errors, trials))


def expected_gain(errors: Sequence[float], more: int) -> float:
    """Return by how much the lowest error is expected to fall with `more` trials.

    The lowest error of N trials falls about as a power of N. Its exponent is that of the last three quarters. Near the
    best of a space this expects two to four times too much (tests/benchmarks/LOG.md): a power has no floor.

    Args:
        errors: the lowest error after each trial that is over.
        more: number of further trials.
    """
    last, total = errors[-1], len(errors)
    if last <= 0:
        return 0.0
    begin = total // 4
    exponent = math.log(errors[begin - 1] / last) / math.log(total / begin)
    return float(last * (1 - (total / (total + more)) ** exponent))
