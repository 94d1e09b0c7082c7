"""Tests of doctor/machine.py: what is said of GPUs that are there, missing, full, or not usable by this torch."""

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kmnist_search.doctor import machine
from kmnist_search.doctor.finding import Finding
from kmnist_search.engine import verdict
from tests.support.stand_in_gpu import StandInGpu

PASSES = 'print(\'{"problem": ""}\')'


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without a GPU, as far as torch sees; return the file that a driver would make."""
    driver = tmp_path / "nvidiactl"
    monkeypatch.setattr(machine, "DRIVER_FILES", (driver,))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return driver


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInGpu]:
    """Four GPUs that pass every self-check."""
    monkeypatch.setattr(verdict, "COMMAND", (sys.executable, "-S", "-c", PASSES))
    monkeypatch.setattr(verdict, "find_spec", lambda name: name)
    monkeypatch.setattr(verdict, "version", lambda name: "3.8")
    with StandInGpu(gpus=4) as gpu:
        yield gpu


def found(name: str) -> Finding:
    (finding,) = (finding for finding in machine.gpus() if finding.name == name)
    return finding


def test_a_machine_without_a_driver_trains_on_its_cpu(no_gpu: Path) -> None:
    assert found("GPU") == Finding(
        name="GPU",
        state="absent",
        text="none: there is no NVIDIA driver here",
        advice="Trials train on the CPU. For real searches of the study kmnist use a machine with an NVIDIA GPU.",
    )


def test_a_torch_for_the_cpu_alone_on_a_machine_with_a_driver_is_bad(
    no_gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_gpu.touch()
    monkeypatch.setattr(torch.version, "cuda", None)
    finding = found("GPU")
    assert finding.state == "bad"
    assert finding.advice == "Install torch with CUDA: pip install --force-reinstall torch torchvision"


def test_a_driver_that_torch_cannot_use_is_bad_with_torchs_reason(
    no_gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_old() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update")

    no_gpu.touch()
    monkeypatch.setattr(torch.cuda, "init", too_old)
    finding = found("GPU")
    assert finding.state == "bad"
    assert finding.text.endswith("RuntimeError: The NVIDIA driver on your system is too old (found version 11040).")


def test_gpus_of_one_model_are_checked_once(gpu: StandInGpu) -> None:
    findings = list(machine.gpus())
    names = [finding.name for finding in findings]
    assert names == ["driver", "compiler", "Triton kernels", "CUDA graphs", *(f"cuda:{number}" for number in range(4))]
    assert {finding.state for finding in findings if finding.name != "compiler"} == {"ok"}
    assert findings[4].text == "Stand-in GPU, 80.0 of 80.0 GiB free, bfloat16"


def test_wrong_kernels_are_bad_whatever_was_remembered(gpu: StandInGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found("Triton kernels").state == "ok"
    wrong = "import sys; print('{\"problem\": \"' + ('3 % off' if sys.argv[1] == 'kernels' else '') + '\"}')"
    monkeypatch.setattr(verdict, "COMMAND", (sys.executable, "-S", "-c", wrong))
    assert found("Triton kernels") == Finding(
        name="Triton kernels",
        state="bad",
        text="3 % off",
        advice="Trials use plain torch until a check passes, which is slower.",
    )
    assert found("CUDA graphs").state == "ok"


def test_a_gpu_that_others_fill_or_hold_is_bad(gpu: StandInGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 * machine.GIB, 80 * machine.GIB))
    assert (found("cuda:2").state, found("cuda:2").advice) == ("bad", "Other programs use it. See which: nvidia-smi")

    def held(device: torch.device) -> None:
        raise RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable")

    monkeypatch.setattr(torch.cuda, "mem_get_info", held)
    assert found("cuda:2").text.startswith("Stand-in GPU cannot be used: RuntimeError: CUDA error: CUDA-capable")


def test_gpus_that_torch_cannot_even_name_are_a_finding_and_no_crash(
    gpu: StandInGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(device: torch.device) -> None:
        raise RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment")

    monkeypatch.setattr(torch.cuda, "get_device_properties", broken)
    assert found("GPU").text.startswith("the GPUs cannot be used: RuntimeError: CUDA unknown error")


def test_a_missing_compiler_and_missing_headers_are_named_for_triton(
    gpu: StandInGpu, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    finding = found("compiler")
    assert finding.text == f"Triton lacks a C compiler and Python's headers ({tmp_path}/Python.h)"
    assert finding.advice == "Install them, such as with: apt install gcc python3-dev"


@pytest.mark.parametrize(("encoding", "state"), [("utf-8", "ok"), ("UTF8", "ok"), ("ascii", "bad")])
def test_an_output_that_cannot_show_hiragana_is_bad(encoding: str, state: str) -> None:
    (finding,) = machine.terminal(encoding=encoding, columns=80, is_terminal=True)
    assert (finding.state, finding.text) == (state, f"80 columns, {encoding}")


def test_little_memory_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: machine.GIB)
    _, memory = machine.processor()
    assert (memory.state, memory.text) == ("bad", "1.0 GiB free for this process")


def test_the_versions_of_what_trains_are_named() -> None:
    names = {finding.name: finding.text for finding in machine.software()}
    assert f"torch {torch.__version__}" in names["packages"]
    assert "optuna " in names["packages"]
    assert sys.executable in names["Python"]
