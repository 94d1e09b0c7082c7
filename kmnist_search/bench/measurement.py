"""One bench from its beginning to its report. Knows nothing of terminals."""

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import torch

from kmnist_search.bench.nets import EPOCH_IMAGES, STEP_COST, shape_text, trials_per_hour
from kmnist_search.bench.peak import matrix_peak
from kmnist_search.bench.report import AtOnce, Comparison, NetReport, Report
from kmnist_search.bench.stopwatch import Throughput
from kmnist_search.bench.testbeds import Testbed
from kmnist_search.bench.work import CompiledTraining, DataLoaderTraining, EagerTraining, OurTrainings, Work
from kmnist_search.config import TrialConfig
from kmnist_search.config.cost import flops_per_image, num_parameters
from kmnist_search.engine.device import device_title
from kmnist_search.errors import MeasurementError
from kmnist_search.host.environment import machine, versions


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured for how long.

    Attributes:
        nets: by name.
        seconds: of each measurement, after its set-up.
        workers: processes of the DataLoader loop that has some.
        in_full: names of the nets that all loops are measured with; with the others neither a DataLoader with workers
            nor a compiled model.
        peak_size: side of the matrices whose product is the peak; None is the device's own.
    """

    nets: Mapping[str, TrialConfig]
    seconds: float
    workers: int
    in_full: frozenset[str]
    peak_size: int | None = None


def plan_for(device: torch.device, nets: Mapping[str, TrialConfig]) -> Plan:
    """Return the plan that a device can do in two minutes, or a GPU in three."""
    if device.type == "cuda":
        return Plan(nets=nets, seconds=2.5, workers=8, in_full=frozenset(nets))
    # A CPU takes half a minute to compile a small net, and seconds for each step of the reference net.
    return Plan(nets=nets, seconds=2.0, workers=2, in_full=frozenset(list(nets)[:1]))


def measured(testbed: Testbed, plan: Plan, images: str) -> Generator[str, None, Report]:
    """Yield what is about to be measured, and return what it all came to.

    Raises:
        MeasurementError: our own training did not run alone.
    """
    started = time.perf_counter()
    yield "the peak of matrix products"
    peak = matrix_peak(testbed.device, size=plan.peak_size)
    nets = []
    for name, config in plan.nets.items():
        nets.append((yield from _net(testbed, plan, name, config, peak.flops_per_second)))
    return Report(
        device=device_title(testbed.device),
        machine=machine(),
        versions=versions(),
        images=images,
        peak_flops_per_second=peak.flops_per_second,
        peak_precision=peak.precision,
        peak_size=peak.size,
        nets=tuple(nets),
        seconds=time.perf_counter() - started,
    )


def _net(testbed: Testbed, plan: Plan, name: str, config: TrialConfig, peak: float) -> Generator[str, None, NetReport]:
    yield f"{name} net, one trial"
    alone = testbed.ours(config, trials=1, seconds=plan.seconds)
    at_once, missing = [_at_once(config, alone, alone, 1, peak)], None
    for trials in (number for number in testbed.trials_at_once if number > 1):
        yield f"{name} net, {trials} trials at once"
        try:
            pace = testbed.ours(config, trials=trials, seconds=plan.seconds)
        except MeasurementError as error:  # as a rule the memory is too small
            missing = f"{trials} at once: {error}"
            break
        at_once.append(_at_once(config, alone, pace, trials, peak))
    comparisons = []
    for loop, work in _loops(testbed.device, plan, name, config).items():
        yield f"{name} net, {loop}"
        comparisons.append(_comparison(loop, testbed, work, alone))
    return NetReport(
        name=name,
        shape=shape_text(config),
        num_parameters=num_parameters(config.model),
        flops_per_image=flops_per_image(config.model),
        setup_seconds=alone.setup_seconds,
        at_once=tuple(at_once),
        missing=missing,
        comparisons=tuple(comparisons),
    )


def _at_once(config: TrialConfig, alone: Throughput, together: Throughput, trials: int, peak: float) -> AtOnce:
    rate = together.images_per_second
    return AtOnce(
        trials=trials,
        images_per_second=rate,
        epoch_seconds=EPOCH_IMAGES / rate,
        trials_per_hour=trials_per_hour(rate, alone.setup_seconds, trials),
        share_of_peak=STEP_COST * flops_per_image(config.model) * rate / peak,
    )


def _loops(device: torch.device, plan: Plan, name: str, config: TrialConfig) -> dict[str, Work]:
    seconds, is_in_full = plan.seconds, name in plan.in_full
    loops: dict[str, Work] = {
        f"DataLoader, {workers} workers": DataLoaderTraining(
            config=config, device=device, seconds=seconds, num_workers=workers
        )
        for workers in ((0, plan.workers) if is_in_full else (0,))
    }
    loops["eager loop"] = EagerTraining(config=config, device=device, seconds=seconds)
    if device.type == "cuda":
        threads = torch.get_num_threads()
        loops["plain CUDA graph"] = OurTrainings(
            config=config, trials=1, device=device, threads=threads, seconds=seconds, way="plain"
        )
    if is_in_full:
        loops["torch.compile"] = CompiledTraining(config=config, device=device, seconds=seconds)
    return loops


def _comparison(name: str, testbed: Testbed, work: Work, ours: Throughput) -> Comparison:
    try:
        pace = testbed.other(work)
    except MeasurementError as error:
        return Comparison(name=name, missing=str(error))
    return Comparison(
        name=name,
        images_per_second=pace.images_per_second,
        epoch_seconds=EPOCH_IMAGES / pace.images_per_second,
        setup_seconds=pace.setup_seconds,
        trials_per_hour=trials_per_hour(pace.images_per_second, pace.setup_seconds),
        ratio=ours.images_per_second / pace.images_per_second,
    )
