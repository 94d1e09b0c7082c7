"""Tests of tests/benchmarks/gpu.py as far as no GPU is needed: its arguments, its time limits and its summary."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.command import CHECKOUT


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", CHECKOUT / "tests" / "benchmarks" / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their own module
    spec.loader.exec_module(module)
    return module


def net(name: str, alone: float, packed: float, share: float, setup: float) -> dict[str, Any]:
    at_once = [
        {"trials": 1, "epoch_seconds": alone, "share_of_peak": share / 2},
        {"trials": 4, "epoch_seconds": packed, "share_of_peak": share},
    ]
    return {"name": name, "at_once": at_once, "setup_seconds": setup}


def recorded(out: Path) -> None:
    nets = [net("small", 0.05, 0.02, 0.1, 0.4), net("reference", 0.2, 0.14, 0.21, 1.2)]
    (out / "bench.out").write_text(json.dumps({"nets": nets}))
    loops = [{"name": "DataLoader, 0 workers", "ratio": 40.0}, {"name": "plain CUDA graph", "ratio": 2.5}]
    (out / "loops.out").write_text(json.dumps({"comparisons": loops}))
    (out / "search.out").write_text(json.dumps({"trials": {"finished": 100}}))
    (out / "utilisation.csv").write_text("".join(f"2026/11/21, {share}, 900, 500\n" for share in (0, 90, 100, 98, 0)))
    (out / "tests.xml").write_text(
        '<testsuites><testsuite tests="9" failures="1" errors="0" skipped="2"/></testsuites>'
    )


@pytest.mark.parametrize(
    ("visible", "sampled"),
    [({}, "0"), ({"CUDA_VISIBLE_DEVICES": "3,1"}, "3"), ({"CUDA_VISIBLE_DEVICES": "GPU-5b1c,GPU-7d"}, "GPU-5b1c")],
)
def test_the_gpu_that_is_used_is_the_one_whose_utilisation_is_sampled(
    gpu: ModuleType, visible: dict[str, str], sampled: str
) -> None:
    assert gpu.first_gpu(visible) == sampled


def test_the_summary_sets_recorded_figures_beside_their_targets(gpu: ModuleType, tmp_path: Path) -> None:
    recorded(tmp_path)
    figures = gpu.summary(tmp_path, [gpu.Part(name="search", exit_code=0, seconds=250.0)])
    assert {figure.name: (figure.value, figure.is_met) for figure in figures} == {
        "GPU tests passed": (6, True),
        "GPU tests failed": (1, False),
        "reference net, an epoch alone": (0.2, True),
        "reference net, an epoch packed": (0.14, True),
        "reference net packed, share of the measured peak": (0.21, True),
        "small net, an epoch packed": (0.02, True),
        "set-up, of the slowest net": (1.2, False),
        "DataLoader loop takes longer": (40.0, True),
        "plain CUDA graph takes longer": (2.5, False),
        "trials finished": (100, True),
        "seconds for 100 trials": (250.0, True),
        "GPU busy from the first to the last step": (pytest.approx(0.96), True),
    }
    assert "MISS  set-up, of the slowest net" in gpu.lines(figures)[6]


def test_references_alone_are_set_beside_their_published_accuracies(gpu: ModuleType, tmp_path: Path) -> None:
    rows = [
        {"name": "S0", "accuracy": 0.88, "measured_on": "test", "reproduced": {"test_accuracy": 0.875}},
        {"name": "S2", "accuracy": 0.94, "measured_on": "test", "reproduced": None},
        {"name": "S4", "accuracy": 0.92, "measured_on": "augmented validation", "reproduced": {"test_accuracy": 0.96}},
    ]
    (tmp_path / "references.out").write_text(json.dumps({"references": rows}))
    figures = gpu.summary(tmp_path, [gpu.Part(name="references", exit_code=0, seconds=500.0)])
    assert [(figure.name, figure.value, figure.is_met) for figure in figures] == [
        ("seconds for all references", 500.0, True),
        ("S0, points from its published accuracy", pytest.approx(0.5), True),
        ("S2, points from its published accuracy", None, False),
    ]


def test_what_no_part_left_is_not_measured_and_not_met(gpu: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "bench.out").write_text('{"nets": [')
    figures = gpu.summary(tmp_path, [])
    assert len(figures) == 11
    assert all(figure.value is None and not figure.is_met for figure in figures)
    assert all("not measured" in line for line in gpu.lines(figures))


def test_a_part_that_fails_or_takes_too_long_is_ended_and_said_so(gpu: ModuleType, tmp_path: Path) -> None:
    failed = gpu.run_part(
        "failed",
        [sys.executable, "-c", "print('x'); raise SystemExit(3)"],
        tmp_path,
        seconds=30,
        environment=os.environ,
    )
    assert failed.exit_code == 3
    assert (tmp_path / "failed.out").read_text() == "x\n"
    late = gpu.run_part("late", ["sleep", "60"], tmp_path, seconds=1, environment=os.environ)
    assert late.exit_code is None
    assert late.seconds < 20


def test_a_bare_checkout_gets_the_metadata_that_the_program_asks_for(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(_name: str) -> str:
        raise gpu.PackageNotFoundError

    monkeypatch.setattr(gpu, "version", absent)
    environment = gpu.environment_of(tmp_path)
    assert environment["PYTHONPATH"].split(os.pathsep)[:2] == [str(CHECKOUT), str(tmp_path)]
    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    assert "Name: kmnist-search\n" in metadata.read_text()


def test_a_folder_without_kmnist_is_refused_before_anything_runs(
    gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        gpu.arguments([str(tmp_path), str(tmp_path / "out")])
    assert caught.value.code == 2
    assert f"{tmp_path} has no KMNIST/raw" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "KMNIST" / "raw").mkdir(parents=True)
    chosen = gpu.arguments([str(tmp_path), str(tmp_path / "out")])
    assert chosen.out_dir.is_dir()
    command = gpu.search_command(chosen.data_dir, tmp_path, 100.4)
    assert command[command.index("--timeout") + 1] == "100s"
