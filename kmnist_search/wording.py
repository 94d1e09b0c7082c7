"""Numbers as readers want them. Knows nothing of what they count."""

from datetime import datetime
from typing import Any

#: Keeps a number and its unit on one line.
SPACE = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share of 1 in percent; empty for None."""
    return "" if share is None else f"{100 * share:.{digits}f}{SPACE}%"


def interval(bounds: tuple[float, float]) -> str:
    """Return two shares of 1 in percent."""
    return f"{100 * bounds[0]:.2f} to {percent(bounds[1])}"


def points(difference: float | None) -> str:
    """Return a signed difference of two shares in percentage points; empty for None."""
    if difference is None:
        return ""
    sign = "+" if round(100 * difference, 2) > 0 else MINUS if round(100 * difference, 2) < 0 else ""
    return f"{sign}{100 * abs(difference):.2f}"


def value(number: Any) -> str:
    """Return a hyperparameter or a metric: a float to four digits, all else as it is."""
    return f"{number:.4g}" if isinstance(number, float) else str(number)


def seconds(time: float | None) -> str:
    """Return a time in a unit that suits it; empty for None."""
    if time is None:
        return ""
    if time < 120:
        return f"{time:.1f}{SPACE}s"
    if time < 2 * 3600:
        return f"{time / 60:.0f}{SPACE}min"
    return f"{time / 3600:.1f}{SPACE}h"


def moment(time: datetime) -> str:
    """Return a time of day with its date and zone."""
    return f"{time:%Y-%m-%d %H:%M:%S} {time.tzname() or ''}".rstrip()


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with what it counts, such as "1 trial" or "2,000 trials"."""
    return f"{number:,}{SPACE}{one if number == 1 else many or one + 's'}"
