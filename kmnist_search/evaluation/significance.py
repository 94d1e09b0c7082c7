"""Confidence intervals and a paired test."""

import math
import statistics
from collections.abc import Sequence

from scipy import stats

CONFIDENCE = 0.95
#: Shares that differ by less are the same: a test on a million images tells more apart.
EQUAL = 1e-9


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return Student's 95 % interval of the mean of shares, cut at 0 and 1; None for fewer than two different ones."""
    if len(set(values)) < 2:
        return None
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    margin = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return max(mean - margin, 0.0), min(mean + margin, 1.0)


def share_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share seen in `count` draws (Wilson 1927, doi:10.2307/2276774).

    scipy's version needs an integer number of hits, which the mean of several models is not.
    """
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    centre = share + z * z / (2 * count)
    margin = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    scale = 1 + z * z / count
    return max((centre - margin) / scale, 0.0), min((centre + margin) / scale, 1.0)


PAIRED_TEST = "corrected resampled t-test over shared seeds and splits (Nadeau & Bengio 2003)"


def paired_p_value(differences: Sequence[float], *, val_share: float) -> float | None:
    """Return the p-value of the differences (null hypothesis: a mean of 0); None for fewer than two different ones.

    The splits overlap, so an ordinary paired t-test is too optimistic: the variance is corrected as in Nadeau & Bengio,
    "Inference for the Generalization Error", Machine Learning 52 (2003), doi:10.1023/A:1024068626366.

    Args:
        differences: winner minus other, one for each random split that both used.
        val_share: share of the images held out in each split.
    """
    count = len(differences)
    if count < 2 or max(differences) - min(differences) < EQUAL:
        return None
    mean, variance = statistics.fmean(differences), statistics.variance(differences)
    t = mean / math.sqrt(variance * (1 / count + val_share / (1 - val_share)))
    return float(2 * stats.t.sf(abs(t), count - 1))
