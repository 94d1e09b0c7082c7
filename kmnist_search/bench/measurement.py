"""The measurement of a machine, its peak, then each net alone and several at once, and the report of it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kmnist_search.bench.nets import EPOCH_IMAGES, STEP_COST, shape_text, trials_per_hour
from kmnist_search.bench.pace import Pace, matrix_peak
from kmnist_search.bench.runners import Runner
from kmnist_search.config import TrialConfig
from kmnist_search.config.cost import flops_per_image, num_parameters
from kmnist_search.engine.device import device_title
from kmnist_search.errors import MeasurementError
from kmnist_search.host.environment import machine, versions

#: How long each pace is measured.
SECONDS = 2.5
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
    """The whole bench; `seconds` is how long it took."""

    device: str
    device_type: str
    machine: str
    versions: Mapping[str, str]
    peak_flops_per_second: float
    peak_precision: str
    peak_size: int
    nets: tuple[NetReport, ...]
    seconds: float


def measure(
    runner: Runner, nets: Mapping[str, TrialConfig], *, on_stage: Callable[[str], None], seconds: float = SECONDS
) -> Report:
    """Measure a machine and return the report.

    Args:
        runner: runs the trainings.
        nets: the configurations to measure, by name.
        on_stage: is called with what is measured next.
        seconds: how long each pace is measured.

    Raises:
        MeasurementError: a training alone did not run.
    """
    started = time.perf_counter()
    on_stage("the peak of matrix products")
    peak = matrix_peak(runner.device)
    measured = [_measure_net(runner, *net, peak.flops_per_second, seconds, on_stage) for net in nets.items()]
    return Report(
        device=device_title(runner.device),
        device_type=runner.device.type,
        machine=machine(),
        versions=versions(),
        peak_flops_per_second=peak.flops_per_second,
        peak_precision=peak.precision,
        peak_size=peak.size,
        nets=tuple(measured),
        seconds=time.perf_counter() - started,
    )


def as_json(report: Report) -> dict[str, Any]:
    """Return the report as JSON values, with the recommended number of trials for each net."""
    values = asdict(report)
    for net, written in zip(report.nets, values["nets"], strict=True):
        written["recommended_trials"] = net.recommended.trials
    return values


def _measure_net(
    runner: Runner, name: str, config: TrialConfig, peak: float, seconds: float, on_stage: Callable[[str], None]
) -> NetReport:
    paces: dict[int, Pace] = {}
    missing = None
    for trials in runner.trials_at_once:
        on_stage(f"{name} net, " + ("one trial" if trials == 1 else f"{trials} trials at once"))
        try:
            paces[trials] = runner.pace(config, trials=trials, seconds=seconds)
        except MeasurementError as error:  # as a rule the memory is too small
            if not paces:
                raise
            missing = f"{trials} at once: {error}"
            break
    setup_seconds = paces[1].setup_seconds
    return NetReport(
        name=name,
        shape=shape_text(config),
        parameters=num_parameters(config.model),
        flops_per_image=flops_per_image(config.model),
        setup_seconds=setup_seconds,
        at_once=tuple(
            AtOnce(
                trials=trials,
                images_per_second=pace.images_per_second,
                epoch_seconds=EPOCH_IMAGES / pace.images_per_second,
                trials_per_hour=trials_per_hour(pace.images_per_second, setup_seconds, trials),
                share_of_peak=STEP_COST * flops_per_image(config.model) * pace.images_per_second / peak,
            )
            for trials, pace in paces.items()
        ),
        missing=missing,
    )
