"""Numbers, times and hyperparameters as text for people."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

MINUS = "\N{MINUS SIGN}"


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share of 1 as percent, such as "96.97 %"; empty for None."""
    return "" if share is None else f"{100 * share:.{digits}f} %"


def interval(bounds: tuple[float, float]) -> str:
    """Return two shares of 1 as percent, such as "96.50 to 97.20 %"."""
    return f"{100 * bounds[0]:.2f} to {percent(bounds[1])}"


def points(difference: float | None) -> str:
    """Return a signed difference of two shares in percentage points; empty for None."""
    if difference is None:
        return ""
    sign = "+" if round(100 * difference, 2) > 0 else MINUS if round(100 * difference, 2) < 0 else ""
    return f"{sign}{100 * abs(difference):.2f}"


def metric_text(metric: str, number: float | None) -> str:
    """Return the value of a metric: an accuracy as percent, a loss with four decimals; empty for None."""
    if metric.endswith("accuracy"):
        return percent(number)
    return "" if number is None else f"{number:.4f}"


def difference(metric: str, number: float) -> str:
    """Return how much two values of a metric differ: accuracies in percentage points, losses with four decimals."""
    return f"{100 * number:.2f} points" if metric.endswith("accuracy") else f"{number:.4f}"


def named_metric(metric: str, number: float | None) -> str:
    """Return the value of a metric after its name, such as "val_accuracy 96.97 %"; empty for None."""
    return "" if number is None else f"{metric} {metric_text(metric, number)}"


def value(number: Any, digits: int = 4) -> str:
    """Return a hyperparameter: a float with so many significant digits, all else as it is."""
    return f"{number:.{digits}g}" if isinstance(number, float) else str(number)


def shown_params(params: Mapping[str, Any]) -> str:
    """Return hyperparameters on one line, floats with three significant digits."""
    return " ".join(f"{name}={value(each, digits=3)}" for name, each in params.items())


def duration_text(time: timedelta | float | None) -> str:
    """Return a duration in its two largest units, such as "2 min 35 s"; empty for None.

    Args:
        time: the duration; a bare number is seconds.
    """
    if time is None:
        return ""
    exact = time.total_seconds() if isinstance(time, timedelta) else time
    if (seconds := round(exact)) < 10:
        return f"{round(exact, 1):g} s"
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"


def moment(time: datetime) -> str:
    """Return a time of day with its date and zone."""
    return f"{time:%Y-%m-%d %H:%M:%S} {time.tzname() or ''}".rstrip()


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with what it counts, such as "1 trial" or "2,000 trials"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
