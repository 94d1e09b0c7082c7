"""Tests of bench/ and its command: what is measured is real, and what is said of it follows from it."""

import io
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from rich.console import Console

from kmnist_search.bench import comparison, measurement, nets
from kmnist_search.bench.images import images_in
from kmnist_search.bench.measurement import Plan, measured
from kmnist_search.bench.nets import trials_per_hour
from kmnist_search.bench.peak import matrix_peak
from kmnist_search.bench.report import AtOnce, Comparison, NetReport, Report, as_json
from kmnist_search.bench.stopwatch import time_steps
from kmnist_search.bench.testbeds import CpuTestbed
from kmnist_search.bench.work import OurTrainings
from kmnist_search.config import TrainConfig, trial_config
from kmnist_search.errors import MeasurementError
from kmnist_search.terminal.bench import report_view

CPU = torch.device("cpu")
NET = trial_config(
    {
        "patch_size": 14,
        "dim": 8,
        "token_width": 4,
        "channel_width": 8,
        "num_blocks": 1,
        "batch_size": 16,
        "shift": 2.0,
        "rotate": 5.0,
        "scale": 0.1,
        "shear": 5.0,
    },
    TrainConfig(epochs=100_000),
)
NOISE_IMAGES = 64


def at_once(trials: int, per_hour: float) -> AtOnce:
    return AtOnce(
        trials=trials,
        images_per_second=1000.0 * trials,
        epoch_seconds=60.0 / trials,
        trials_per_hour=per_hour,
        share_of_peak=0.125,
    )


def report_of(*measured_at_once: AtOnce) -> Report:
    loops = (
        Comparison(
            name="DataLoader, 8 workers",
            images_per_second=100.0,
            epoch_seconds=600.0,
            setup_seconds=1.5,
            trials_per_hour=0.22,
            ratio=10.0,
        ),
        Comparison(name="torch.compile", missing="RuntimeError: there is no C++ compiler"),
    )
    net = NetReport(
        name="reference",
        shape=nets.shape_text(nets.REFERENCE),
        num_parameters=1_114_062,
        flops_per_image=1_000,
        setup_seconds=0.25,
        at_once=measured_at_once,
        missing="8 at once: OutOfMemoryError: CUDA out of memory",
        comparisons=loops,
    )
    return Report(
        device="NVIDIA H200",
        machine="AMD EPYC, 16 cores, Linux 6.1",
        versions={"python": "3.12.1", "torch": "2.11.0"},
        images="noise",
        peak_flops_per_second=8.0e14,
        peak_precision="bfloat16",
        peak_size=8192,
        nets=(net,),
        seconds=120.0,
    )


def test_steps_are_timed_for_as_long_as_asked_and_the_set_up_apart() -> None:
    def make_step() -> Callable[[], int]:
        time.sleep(0.05)

        def step() -> int:
            time.sleep(0.01)
            return 7

        return step

    pace = time_steps(make_step, device=CPU, seconds=0.1, warm_up_steps=3)
    assert 0.08 <= pace.setup_seconds < 1
    assert 7 / 0.1 < pace.images_per_second <= 7 / 0.01


def test_one_step_is_timed_even_if_it_takes_longer_than_asked() -> None:
    def step() -> int:
        time.sleep(0.02)
        return 5

    pace = time_steps(lambda: step, device=CPU, seconds=0.0, warm_up_steps=0)
    assert 0 < pace.images_per_second <= 5 / 0.02


def test_a_trial_is_thirty_epochs_with_validation_and_set_up() -> None:
    images = 30 * (50_000 + 10_000 / 3)
    assert trials_per_hour(images / 90, 10.0) == pytest.approx(36)
    assert trials_per_hour(images / 90 * 4, 10.0, trials=4) == pytest.approx(4 * 36)


def test_the_fewest_trials_within_three_percent_of_the_best_are_recommended() -> None:
    report = report_of(at_once(1, 50.0), at_once(2, 97.5), at_once(4, 100.0))
    assert report.nets[0].recommended.trials == 2
    report = report_of(at_once(1, 50.0), at_once(2, 96.0), at_once(4, 100.0))
    assert report.nets[0].recommended.trials == 4
    assert as_json(report)["nets"][0]["recommended_trials"] == 4


@pytest.mark.parametrize("columns", [80, 120])
def test_the_tables_and_their_figures_fit_into_a_terminal(columns: int) -> None:
    console = Console(width=columns, record=True, file=io.StringIO())
    console.print(report_view(report_of(at_once(1, 50.0), at_once(2, 97.5))))
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= columns
    for shown in ("800 TFLOP/s", "KMNIST is not in", "ours, 2 at once", "10.0 x", "0.250", "2 for the"):
        assert shown in " ".join(text.split())
    assert "not measured: torch.compile: RuntimeError: there is no C++ compiler" in text


def test_the_peak_is_of_the_size_asked_for() -> None:
    peak = matrix_peak(CPU, size=64, seconds=0.01)
    assert (peak.size, peak.precision) == (64, "float32")
    assert peak.flops_per_second > 1e6


def test_without_kmnist_noise_of_its_shape_is_measured_with_and_nothing_downloaded(tmp_path: Path) -> None:
    images = images_in(tmp_path, noise_images=40)
    assert images.source == "noise"
    assert (images.data.train_images.shape, images.data.train_images.dtype) == ((40, 28, 28), torch.uint8)
    assert len(images.data.train_labels) == 40
    assert list(tmp_path.iterdir()) == []


def test_kmnist_is_measured_with_where_it_is(real_data_dir: Path) -> None:
    images = images_in(real_data_dir)
    assert (images.source, len(images.data.train_images), len(images.data.val_images)) == ("kmnist", 60_000, 0)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_dataloader_loop_trains(tmp_path: Path, num_workers: int) -> None:
    data = images_in(tmp_path, noise_images=NOISE_IMAGES).data
    pace = comparison.dataloader_loop()(NET, data, CPU, seconds=0.0, num_workers=num_workers)
    assert pace.images_per_second > 0
    assert pace.setup_seconds > 0


def test_the_eager_loop_and_several_of_ours_train(tmp_path: Path) -> None:
    data = images_in(tmp_path, noise_images=NOISE_IMAGES).data
    before = torch.get_num_threads()
    ours = OurTrainings(config=NET, trials=2, device=CPU, threads=1, seconds=0.05)
    for pace in (comparison.eager_loop()(NET, data, CPU, seconds=0.05), ours(data)):
        assert pace.images_per_second > 0
        assert pace.setup_seconds > 0
    torch.set_num_threads(before)


@pytest.mark.slow
def test_a_bench_on_the_cpu_measures_in_processes_and_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "flops_per_image", lambda _model: 1000)
    plan = Plan(nets={"tiny": NET}, seconds=0.05, workers=2, in_full=frozenset(), peak_size=64)
    with CpuTestbed(tmp_path, cores=2, noise_images=NOISE_IMAGES) as place:
        processes = [*place._ours, place._other]
        stages = measured(place, plan, "noise")
        shown = []
        while True:
            try:
                shown.append(next(stages))
            except StopIteration as end:
                report = end.value
                break
        assert shown[1:3] == ["tiny net, one trial", "tiny net, 2 trials at once"]
        os.kill(processes[0]._process.pid or 0, signal.SIGKILL)
        with pytest.raises(MeasurementError, match="its process ended with exit code -9"):
            place.ours(NET, trials=1, seconds=0.0)
    assert not any(process._process.is_alive() for process in processes)
    written = json.loads(json.dumps(as_json(report)))
    assert written.keys() == Report.__dataclass_fields__.keys()
    (net,) = written["nets"]
    assert net.keys() == {*NetReport.__dataclass_fields__, "recommended_trials"}
    assert [each["trials"] for each in net["at_once"]] == [1, 2]
    assert all(each["share_of_peak"] > 0 and each["trials_per_hour"] > 0 for each in net["at_once"])
    assert [loop["name"] for loop in net["comparisons"]] == ["DataLoader, 0 workers", "eager loop"]
    assert all(loop["ratio"] > 0 and loop["missing"] is None for loop in net["comparisons"])


def test_a_loop_that_cannot_run_is_said_to_be_missing() -> None:
    class Broken:
        device = CPU

        def other(self, work: object) -> object:
            raise MeasurementError("InductorError: no compiler")

    made = measurement._comparison("torch.compile", Broken(), None, None)  # type: ignore[arg-type]
    assert made == Comparison(name="torch.compile", missing="InductorError: no compiler")


def test_a_device_that_is_not_there_is_refused_at_once(invoke: Callable[..., Result]) -> None:
    for device, advice in (("cuda:99", "this machine has"), ("tpu", "use auto, cpu, cuda or cuda:N")):
        result = invoke("bench", "--device", device)
        assert (result.exit_code, result.stdout) == (2, "")
        assert advice in result.stderr
