"""The report of a bench, as frozen values; `kmnist-search bench --json` prints exactly these."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: A number of trials at once whose trials an hour are this share of the best is as good, and takes less memory.
AS_GOOD_AS_THE_BEST = 0.97


@dataclass(frozen=True, kw_only=True)
class AtOnce:
    """A number of trials at once: what they train together, and how many whole trials an hour that is."""

    trials: int
    images_per_second: float
    epoch_seconds: float
    trials_per_hour: float
    share_of_peak: float


@dataclass(frozen=True, kw_only=True)
class NetReport:
    """One net. `at_once` begins with one trial alone; `missing` says why larger numbers are not there."""

    name: str
    shape: str
    parameters: int
    flops_per_image: int
    setup_seconds: float
    at_once: tuple[AtOnce, ...]
    missing: str | None

    @property
    def recommended(self) -> AtOnce:
        """The fewest trials at once that are as good as the best number."""
        best = max(each.trials_per_hour for each in self.at_once)
        return next(each for each in self.at_once if each.trials_per_hour >= AS_GOOD_AS_THE_BEST * best)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole bench. `images` is "kmnist" or "noise"; `seconds` is how long it took."""

    device: str
    device_type: str
    machine: str
    versions: Mapping[str, str]
    images: str
    peak_flops_per_second: float
    peak_precision: str
    peak_size: int
    nets: tuple[NetReport, ...]
    seconds: float


def as_json(report: Report) -> dict[str, Any]:
    """Return the report as JSON values, with the recommended number of trials for each net."""
    values = asdict(report)
    for net, written in zip(report.nets, values["nets"], strict=True):
        written["recommended_trials"] = net.recommended.trials
    return values
