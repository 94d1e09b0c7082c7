"""The measurement of a machine: its peak, then each net alone and several at once."""

import time
from collections.abc import Callable, Mapping

from kmnist_search.bench.nets import EPOCH_IMAGES, STEP_COST, shape_text, trials_per_hour
from kmnist_search.bench.pace import Pace
from kmnist_search.bench.peak import matrix_peak
from kmnist_search.bench.report import AtOnce, NetReport, Report
from kmnist_search.bench.runners import Runner
from kmnist_search.config import TrialConfig
from kmnist_search.config.cost import flops_per_image, num_parameters
from kmnist_search.engine.device import device_title
from kmnist_search.errors import MeasurementError
from kmnist_search.host.environment import machine, versions

#: How long each pace is measured.
SECONDS = 2.5


def measure(
    runner: Runner,
    nets: Mapping[str, TrialConfig],
    *,
    images: str,
    on_stage: Callable[[str], None],
    seconds: float = SECONDS,
) -> Report:
    """Measure a machine and return the report.

    Args:
        runner: runs the trainings.
        nets: the configurations to measure, by name.
        images: what the images are, "kmnist" or "noise".
        on_stage: is called with what is measured next.
        seconds: how long each pace is measured.

    Raises:
        MeasurementError: a training alone did not run.
    """
    started = time.perf_counter()
    on_stage("the peak of matrix products")
    peak = matrix_peak(runner.device)
    measured = []
    for name, config in nets.items():
        measured.append(_measure_net(runner, name, config, peak.flops_per_second, seconds, on_stage))
    return Report(
        device=device_title(runner.device),
        device_type=runner.device.type,
        machine=machine(),
        versions=versions(),
        images=images,
        peak_flops_per_second=peak.flops_per_second,
        peak_precision=peak.precision,
        peak_size=peak.size,
        nets=tuple(measured),
        seconds=time.perf_counter() - started,
    )


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
        at_once=tuple(_at_once(config, trials, pace, setup_seconds, peak) for trials, pace in paces.items()),
        missing=missing,
    )


def _at_once(config: TrialConfig, trials: int, pace: Pace, setup_seconds: float, peak: float) -> AtOnce:
    rate = pace.images_per_second
    return AtOnce(
        trials=trials,
        images_per_second=rate,
        epoch_seconds=EPOCH_IMAGES / rate,
        trials_per_hour=trials_per_hour(rate, setup_seconds, trials),
        share_of_peak=STEP_COST * flops_per_image(config.model) * rate / peak,
    )
