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


FINDINGS = [
    {"name": "cuda:0", "state": "ok", "text": "NVIDIA H100 80GB HBM3, 79.1 of 80.0 GiB free, bfloat16"},
    {"name": "CUDA graphs", "state": "bad", "text": "CUDA graphs are 12% off plain torch"},
]


def recorded(out: Path) -> None:
    (out / "doctor.out").write_text(json.dumps(FINDINGS))
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


def test_recorded_output_becomes_figures_beside_their_targets(gpu: ModuleType, tmp_path: Path) -> None:
    recorded(tmp_path)
    figures = [
        *gpu.doctor_figures(tmp_path),
        *gpu.tests_figures(tmp_path),
        *gpu.loops_figures(tmp_path),
        *gpu.search_figures(tmp_path, 250.0),
    ]
    assert {figure.name: (figure.value, figure.target("")) for figure in figures} == {
        "GPU": (1, None),
        "doctor, things that do not work": (1, ("<= 0", False)),
        "GPU tests passed": (6, (">= 1", True)),
        "GPU tests failed": (1, ("<= 0", False)),
        "DataLoader loop takes longer, times": (40.0, (">= 35", True)),
        "plain CUDA graph takes longer, times": (2.5, (">= 3", False)),
        "trials finished": (100, (">= 100", True)),
        "seconds for 100 trials": (250.0, ("<= 300", True)),
        "GPU busy from the first to the last step": (pytest.approx(0.96), (">= 0.9", True)),
    }


@pytest.mark.parametrize(
    ("model", "target"),
    [("NVIDIA H200, 139 GiB", ("<= 0.15", False)), ("NVIDIA H100 80GB HBM3", ("<= 0.21", True)), ("RTX 4090", None)],
)
def test_an_h100_and_an_h200_have_targets_of_their_own(gpu: ModuleType, model: str, target: Any) -> None:
    assert gpu.Figure(name=gpu.PACKED, value=0.18).target(model) == target


def test_references_are_set_beside_their_published_accuracies(gpu: ModuleType, tmp_path: Path) -> None:
    rows = [
        {"name": "S0", "accuracy": 0.88, "measured_on": "test", "reproduced": {"test_accuracy": 0.875}},
        {"name": "S2", "accuracy": 0.94, "measured_on": "test", "reproduced": None},
        {"name": "S4", "accuracy": 0.92, "measured_on": "augmented validation", "reproduced": {"test_accuracy": 0.96}},
    ]
    (tmp_path / "references.out").write_text(json.dumps({"references": rows}))
    assert [(figure.name, figure.value, figure.target("")) for figure in gpu.references_figures(tmp_path)] == [
        ("S0, points from its published accuracy", pytest.approx(0.5), ("<= 1", True)),
        ("S2, points from its published accuracy", None, ("<= 1", False)),
    ]


def test_what_no_part_left_is_not_measured_and_misses_its_target(gpu: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "loops.out").write_text('{"comparisons": [')
    for figure in (*gpu.loops_figures(tmp_path), *gpu.tests_figures(tmp_path), *gpu.search_figures(tmp_path, 1.0)):
        assert figure.value is None
        assert figure.line("").startswith("MISS")
        assert "not measured" in figure.line("")


def test_a_part_that_fails_or_takes_too_long_is_ended_and_keeps_its_lines(gpu: ModuleType, tmp_path: Path) -> None:
    def run(name: str, script: str, seconds: float) -> int | None:
        code: int | None = gpu.run_part(
            name, [sys.executable, "-c", script], tmp_path, seconds=seconds, environment=os.environ, on_line=seen.append
        )
        return code

    seen: list[str] = []
    assert run("failed", "print('x'); raise SystemExit(3)", 240) == 3
    assert run("late", "import time; print('one', flush=True); time.sleep(600); print('two')", 5) is None
    assert seen == ["x\n", "one\n"]
    assert (tmp_path / "late.out").read_text() == "one\n"


#: Stands in for gpu_figures.py: its first process loses the GPU, its second is cut off, its third measures the rest.
LOSES_THE_GPU = """
import json, sys, time
known = {json.loads(line)["name"] for line in open(sys.argv[2])} if __import__("os").path.exists(sys.argv[2]) else set()
def figure(number):
    print(json.dumps({"name": f"torch, split, {number}: trains", "value": 1, "note": ""}), flush=True)
if not known:
    figure(1)
    sys.exit(3)
if len(known) == 1:
    figure(2)
    time.sleep(600)
figure(3)
"""


def test_a_stretch_resumes_with_what_is_not_measured_yet(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        gpu, "figures_command", lambda part, known: [sys.executable, "-c", LOSES_THE_GPU, part, str(known)]
    )
    monkeypatch.setattr(gpu, "STRETCH_SECONDS", 15.0)
    monkeypatch.setattr(gpu, "FEWEST_SECONDS", 1.0)
    first = gpu.Stretch(tmp_path, tmp_path, os.environ)
    first.work(["matrix"])
    assert list(first.book.figures) == ["torch, split, 1: trains", "torch, split, 2: trains"]
    assert first.book.parts == {}
    second = gpu.Stretch(tmp_path, tmp_path, os.environ)
    second.work(["matrix"])
    assert [figure.value for figure in second.book.figures.values()] == [1, 1, 1]
    assert second.book.parts["matrix"]["exit_code"] == 0
    third = gpu.Stretch(tmp_path, tmp_path, os.environ)
    third.work(["matrix"])
    assert len((tmp_path / "figures.jsonl").read_text().splitlines()) == 3


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
