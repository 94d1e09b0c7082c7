"""A curve as one line of characters."""

import math
from collections.abc import Sequence

STEPS = "▁▂▃▄▅▆▇█"
#: Ordered by height or amount of ink.
ASCII_STEPS = "_.-~=+*#"
#: Smaller errors and losses are drawn as this one.
LEAST_ERROR = 1e-4
#: Width of a curve in a table.
MAX_CURVE = 24


def sparkline(values: Sequence[float], scale: tuple[float, float] | None, *, ascii_only: bool = False) -> str:
    """Return one character for each value, on a scale from the lowest to the highest; nothing without a scale.

    A value that is not finite is shown as a dot, or as "!" where only ASCII is allowed.
    """
    if scale is None:
        return ""
    low, high = scale
    steps, no_number = (ASCII_STEPS, "!") if ascii_only else (STEPS, "·")
    height = (len(steps) - 1) / (high - low) if high > low else 0.0
    return "".join(steps[round((value - low) * height)] if math.isfinite(value) else no_number for value in values)


def stretched(values: Sequence[float], metric: str) -> list[float]:
    """Return values on a scale on which their differences show: that of the logarithm of the error or the loss.

    On a plain scale all epochs after the third look the same: 94 and 97 % differ by little, 6 and 3 % by half.
    """

    def on_scale(value: float) -> float:
        if metric.endswith("accuracy"):
            return -math.log(max(1.0 - value, LEAST_ERROR))
        return math.log(max(value, LEAST_ERROR))

    return [on_scale(value) if math.isfinite(value) else math.nan for value in values]


def fitted(values: Sequence[float], width: int) -> Sequence[float]:
    """Return at most `width` values, evenly picked, including the last one."""
    count = len(values)
    return values if count <= width else [values[(turn + 1) * count // width - 1] for turn in range(width)]


def bounds(curves: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Return the lowest and the highest finite value of all curves; None if there is none."""
    finite = [value for curve in curves for value in curve if math.isfinite(value)]
    return (min(finite), max(finite)) if finite else None
