"""Tests of bench/ and its command: the measurement is real, and the recommendation follows from it."""

import io
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import partial

import pytest
import torch
from click.testing import Result
from rich.console import Console

from kmnist_search.bench import measurement, nets
from kmnist_search.bench.measurement import AtOnce, NetReport, Report, as_json, measure
from kmnist_search.bench.nets import noise, trials_per_hour
from kmnist_search.bench.pace import matrix_peak, training_pace
from kmnist_search.bench.runners import Runner, runner_for
from kmnist_search.config import TrainConfig, trial_config
from kmnist_search.engine.device import has_bfloat16
from kmnist_search.errors import MeasurementError
from kmnist_search.terminal.bench import recommendation, report_view

CPU = torch.device("cpu")
NET = trial_config(
    {"patch_size": 14, "dim": 8, "token_width": 4, "channel_width": 8, "num_blocks": 1, "batch_size": 16, "shift": 2.0},
    TrainConfig(epochs=100_000),
)


def at_once(trials: int, per_hour: float) -> AtOnce:
    return AtOnce(
        trials=trials,
        images_per_second=1000.0 * trials,
        epoch_seconds=60.0 / trials,
        trials_per_hour=per_hour,
        share_of_peak=0.125,
    )


def net_of(name: str, *measured_at_once: AtOnce) -> NetReport:
    return NetReport(
        name=name,
        shape=nets.shape_text(nets.REFERENCE),
        parameters=1_114_062,
        flops_per_image=1_000,
        setup_seconds=0.25,
        at_once=measured_at_once,
        missing="8 at once: OutOfMemoryError: CUDA out of memory",
    )


def report_of(*net_reports: NetReport, device_type: str = "cuda") -> Report:
    return Report(
        device="NVIDIA H200",
        device_type=device_type,
        machine="AMD EPYC, 16 cores, Linux 6.1",
        versions={"python": "3.12.1", "torch": "2.11.0"},
        peak_flops_per_second=8.0e14,
        peak_precision="bfloat16",
        peak_size=8192,
        nets=net_reports,
        seconds=120.0,
    )


def test_a_trial_is_thirty_epochs_with_validation_and_set_up() -> None:
    images = 30 * (50_000 + 10_000 / 3)
    assert trials_per_hour(images / 90, 10.0) == pytest.approx(36)
    assert trials_per_hour(images / 90 * 4, 10.0, trials=4) == pytest.approx(4 * 36)


def test_the_fewest_trials_within_three_percent_of_the_best_are_recommended() -> None:
    assert net_of("small", at_once(1, 50.0), at_once(2, 97.5), at_once(4, 100.0)).recommended.trials == 2
    net = net_of("small", at_once(1, 50.0), at_once(2, 96.0), at_once(4, 100.0))
    assert net.recommended.trials == 4
    assert as_json(report_of(net))["nets"][0]["recommended_trials"] == 4


def test_the_recommendation_is_the_option_to_run_with() -> None:
    one, two = (at_once(1, 50.0), at_once(2, 50.1)), (at_once(1, 50.0), at_once(2, 97.5))
    alike = report_of(net_of("small", *two), net_of("large", *two))
    assert recommendation(alike) == "Recommended: kmnist-search run --per-gpu 2"
    apart = report_of(net_of("tiny", *two), net_of("small", *two), net_of("large", *one), device_type="cpu")
    assert recommendation(apart) == "Recommended for kmnist-search run: --workers 2 (tiny, small), --workers 1 (large)"


@pytest.mark.parametrize("columns", [80, 120])
def test_the_report_fits_into_a_terminal_and_ends_with_the_recommendation(columns: int) -> None:
    console = Console(width=columns, record=True, file=io.StringIO())
    console.print(report_view(report_of(net_of("reference", at_once(1, 50.0), at_once(2, 97.5)))))
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= columns
    for shown in ("800 TFLOP/s", "1,114,062 parameters", "0.250", "Measured in 2 min"):
        assert shown in " ".join(text.split())
    assert "not measured: 8 at once: OutOfMemoryError: CUDA out of memory" in text
    assert text.splitlines()[-1].rstrip() == "Recommended: kmnist-search run --per-gpu 2"


def test_the_peak_is_of_the_size_asked_for() -> None:
    peak = matrix_peak(CPU, size=64, seconds=0.01)
    assert (peak.size, peak.precision) == (64, "bfloat16" if has_bfloat16(CPU) else "float32")
    assert peak.flops_per_second > 1e6


def test_as_many_images_as_kmnist_has_are_measured_with() -> None:
    data = noise()
    assert (data.train_images.shape, data.train_images.dtype) == ((60_000, 28, 28), torch.uint8)
    assert (len(data.train_labels), len(data.val_images)) == (60_000, 0)


@pytest.mark.usefixtures("one_thread")
def test_several_trainings_train_in_one_process() -> None:
    pace = training_pace(NET, noise(), trials=2, device=CPU, seconds=0.05)
    assert pace.images_per_second > 0
    assert pace.setup_seconds > 0


@pytest.mark.slow
def test_a_bench_on_the_cpu_measures_in_processes_and_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "matrix_peak", partial(matrix_peak, size=64))
    monkeypatch.setattr(measurement, "flops_per_image", lambda _model: 1000)
    stages: list[str] = []
    with runner_for(CPU, cores=2) as runner:
        report = measure(runner, {"tiny": NET}, on_stage=stages.append, seconds=0.05)
        assert stages[1:] == ["tiny net, one trial", "tiny net, 2 trials at once"]
        processes = multiprocessing.active_children()
        assert len(processes) == 2
        os.kill(processes[0].pid or 0, signal.SIGKILL)
        processes[0].join()
        with pytest.raises(MeasurementError, match="one of its processes was killed"):
            _measure_often(runner)
    assert not any(process.is_alive() for process in processes)
    written = json.loads(json.dumps(as_json(report)))
    assert written.keys() == Report.__dataclass_fields__.keys()
    (net,) = written["nets"]
    assert net.keys() == {*NetReport.__dataclass_fields__, "recommended_trials"}
    assert [each["trials"] for each in net["at_once"]] == [1, 2]
    assert all(each["share_of_peak"] > 0 and each["trials_per_hour"] > 0 for each in net["at_once"])


def test_an_interrupt_ends_the_processes_at_once() -> None:
    processes = []

    def interrupted() -> None:
        with runner_for(CPU, cores=1):
            processes.extend(multiprocessing.active_children())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(processes) == 1
    assert not processes[0].is_alive()


def test_a_device_that_is_not_there_is_refused_at_once(invoke: Callable[..., Result]) -> None:
    for device, advice in (("cuda:99", "this machine has"), ("tpu", "use auto, cpu, cuda or cuda:N")):
        result = invoke("bench", "--device", device)
        assert (result.exit_code, result.stdout) == (2, "")
        assert advice in result.stderr


def _measure_often(runner: Runner) -> None:
    """Measure until it fails: the other process may do the work of both before the pool notices a death."""
    for _ in range(1000):
        runner.pace(NET, trials=2, seconds=0.0)
