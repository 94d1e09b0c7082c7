"""Tests of engine/verdict.py on a stand-in GPU: what a self-check finds is remembered, and what failed is not used."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kmnist_search.config import DataConfig, TrainConfig, trial_config
from kmnist_search.data import search_data
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine import verdict
from kmnist_search.engine.backends import HAS_TRITON, uses_triton
from kmnist_search.engine.cuda_graphs import GraphStepping
from kmnist_search.engine.stepping import EagerStepping
from kmnist_search.engine.training import Training
from kmnist_search.engine.verdict import Verdict, check, is_remembered, told
from kmnist_search.errors import DeviceLostError
from tests.support.stand_in_gpu import StandInGpu

GPU = torch.device("cuda", 0)
CONFIG = trial_config(
    {"patch_size": 14, "dim": 8, "token_width": 4, "channel_width": 8, "num_blocks": 1, "batch_size": 128},
    TrainConfig(epochs=1, precision="float32"),
)


@pytest.fixture(autouse=True)
def gpu() -> Iterator[StandInGpu]:
    """A GPU that has not been checked."""
    with StandInGpu() as gpu:
        verdict._known.clear()
        yield gpu


@pytest.fixture(scope="module")
def data() -> SearchData:
    return search_data.load(DataConfig(dataset="digits"), Path())


def finding(monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Let the self-check of each part be a Python program; the others find no problem."""
    passes = "print(json.dumps({'problem': ''}))"
    script = f"import json, os, sys, time\nexec({programs!r}.get(sys.argv[1], {passes!r}))"
    monkeypatch.setattr(verdict, "COMMAND", (sys.executable, "-S", "-c", script))
    monkeypatch.setattr(verdict, "find_spec", lambda name: name)  # as where there is Triton
    monkeypatch.setattr(verdict, "version", lambda name: "3.8")


def forgotten() -> None:
    """What this process knows is forgotten, as in a new one."""
    verdict._known.clear()


FOUND = (
    "print(json.dumps({'problem': 'the Triton kernels are 3.1% off plain torch (usual size, float32)', 'gain': 2.34}))"
)


def test_a_gpu_that_passes_is_told_once_and_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    finding(monkeypatch)
    begins, passed = told(GPU)
    assert begins == "self-check of Stand-in GPU, once for this GPU and these versions, in up to a minute ..."
    assert passed.startswith("self-check of Stand-in GPU passed in ")
    forgotten()
    monkeypatch.setattr(verdict, "COMMAND", ("no-such-program",))
    assert list(told(GPU)) == []
    assert uses_triton(CONFIG, GPU, "auto")


def test_kernels_that_differ_are_not_used_and_the_reason_is_told_by_every_run(
    monkeypatch: pytest.MonkeyPatch, data: SearchData
) -> None:
    finding(monkeypatch, kernels=FOUND)
    for _ in range(2):
        *_, reason, way_out = told(GPU)
        assert reason == (
            "the Triton kernels are not used (the Triton kernels are 3.1% off plain torch (usual size, float32)): "
            "trials train in plain torch, which takes 2.3 times as long here"
        )
        assert way_out == "to check the GPU again: kmnist-search doctor"
        forgotten()
    assert not uses_triton(CONFIG, GPU, "auto")
    assert isinstance(Training(CONFIG, data, seed=0, device=GPU)._runner._stepping, GraphStepping)


def test_without_graphs_trainings_take_their_steps_one_by_one(
    monkeypatch: pytest.MonkeyPatch, data: SearchData, gpu: StandInGpu
) -> None:
    finding(monkeypatch, kernels=FOUND, graphs="print(json.dumps({'problem': 'CUDA error: not supported'}))")
    training = Training(CONFIG, data, seed=0, device=GPU)
    assert isinstance(training._runner._stepping, EagerStepping)
    (epoch,) = training.epochs()
    assert gpu.captures == 0
    forgotten()
    expected = Training(CONFIG, data, seed=0, device=torch.device("cpu"))
    assert [epoch.val_accuracy] == pytest.approx([each.val_accuracy for each in expected.epochs()], abs=0.02)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("sys.exit('ImportError: libcuda.so.1')", "the self-check ended with exit code 1: ImportError: libcuda.so.1"),
        ("os.abort()", "the self-check ended with exit code -6: it said nothing"),
    ],
)
def test_a_check_that_breaks_down_is_an_answer(monkeypatch: pytest.MonkeyPatch, program: str, reason: str) -> None:
    finding(monkeypatch, kernels=program)
    assert verdict.verdict(GPU).kernels == reason
    assert verdict.verdict(GPU).graphs == ""
    assert is_remembered(GPU)


def test_a_check_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    finding(monkeypatch, kernels="time.sleep(1000)")
    monkeypatch.setattr(verdict, "TIMEOUT_SECONDS", 3.0)
    assert verdict.verdict(GPU).kernels == "the self-check was not over after 3 s"


@pytest.mark.parametrize("program", [f"sys.exit({verdict.NOT_NOW})", "os.kill(os.getpid(), 15)"])
def test_a_check_that_found_no_memory_or_was_stopped_is_made_again_by_the_next_process(
    monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    finding(monkeypatch, kernels=program)
    assert verdict.verdict(GPU).kernels.startswith("not checked: ")
    assert not uses_triton(CONFIG, GPU, "auto")
    forgotten()
    assert not is_remembered(GPU)


def test_a_new_driver_and_a_damaged_file_are_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    finding(monkeypatch)
    check(GPU)
    forgotten()
    (file,) = verdict._folder().glob("*.json")
    assert json.loads(file.read_text())["gpu"] == "Stand-in GPU"
    assert is_remembered(GPU)
    with monkeypatch.context() as patch:
        patch.setattr(verdict, "driver_version", lambda: "999.1")
        assert not is_remembered(GPU)
    file.write_text(file.read_text()[:20])
    assert not is_remembered(GPU)


def test_where_nothing_can_be_remembered_a_process_still_checks_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    finding(monkeypatch)
    (tmp_path / "a file").touch()
    monkeypatch.setattr(verdict, "_folder", lambda: tmp_path / "a file" / "cache")
    assert verdict.verdict(GPU) == verdict.verdict(GPU)
    assert verdict.verdict(GPU).kernels == ""


def test_a_process_learns_from_the_one_that_started_it_but_a_later_verdict_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    finding(monkeypatch, kernels=FOUND)
    check(GPU)
    known = verdict.known()
    forgotten()
    verdict.give_up_graphs(GPU, "the capture failed")  # by another process
    forgotten()
    verdict.learn(known)
    assert verdict.verdict(GPU).graphs == "the capture failed"
    forgotten()
    monkeypatch.setattr(verdict, "_folder", lambda: tmp_path / "nothing here")
    verdict.learn(known)
    assert verdict.verdict(GPU) == known[verdict._name(GPU)]


def test_without_triton_only_the_graphs_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    finding(monkeypatch, kernels="os.abort()")
    monkeypatch.setattr(verdict, "find_spec", lambda name: None)
    found = verdict.verdict(GPU)
    assert (found.kernels, found.graphs) == ("Triton is not installed", "")


def test_a_capture_that_fails_in_a_training_is_the_last_on_this_gpu(data: SearchData, gpu: StandInGpu) -> None:
    verdict._known[verdict._name(GPU)] = Verdict(kernels="no compiler", graphs="")
    training = Training(CONFIG, data, seed=0, device=GPU)
    gpu.fails_at_capture_end = True
    with pytest.raises(DeviceLostError):
        next(iter(training.epochs()))
    forgotten()  # the process is replaced
    gpu.has_lost_a_capture = False
    assert verdict.verdict(GPU).graphs.startswith("AcceleratorError: CUDA error: the capture could not be ended")
    assert len(list(Training(CONFIG, data, seed=0, device=GPU).epochs())) == 1


def test_a_capture_that_finds_no_memory_says_nothing_about_graphs(
    monkeypatch: pytest.MonkeyPatch, data: SearchData, gpu: StandInGpu
) -> None:
    verdict._known[verdict._name(GPU)] = Verdict(kernels="no compiler", graphs="")

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    training = Training(CONFIG, data, seed=0, device=GPU)
    monkeypatch.setattr(torch.cuda.CUDAGraph, "capture_end", full)
    with pytest.raises(DeviceLostError):
        next(iter(training.epochs()))
    assert verdict.verdict(GPU).graphs == ""


@pytest.mark.slow
def test_the_self_check_runs_in_processes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    within = (
        "import sys, torch\n"
        "from kmnist_search.engine import cuda_graphs, self_check\n"
        "from tests.support.stand_in_gpu import StandInGpu\n"
        "cuda_graphs.STEPS_PER_GRAPH = 1\n"
        "self_check.CASES = {'tiny': {**self_check.SHAPE, 'patch_size': 14, 'dim': 8, 'token_width': 4,"
        " 'channel_width': 8, 'num_blocks': 1, 'batch_size': 2}}\n"
        "self_check.problem.__defaults__ = (self_check.CASES,)\n"
        "self_check.gain.__defaults__ = (self_check.CASES['tiny'],)\n"
        "with StandInGpu(bfloat16=False): self_check.main(*sys.argv[1:])\n"
    )
    monkeypatch.setattr(verdict, "COMMAND", (sys.executable, "-c", within))
    found = check(GPU)
    assert (found.graphs, found.kernels) == ("", "" if HAS_TRITON else "Triton is not installed")
    assert found.graphs_gain > 0
