"""Tests of engine/compile_ahead.py and engine/kernel_compiler.py: what a study needs is compiled before it starts.

As a script it runs without Triton's interpreter: `compile` compiles for a stand-in of an H100, as one of several
processes would; `sample` compares the kernels of some trials of a study with those of others.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="there is no Triton for this platform")

from kmnist_search.config import TrainConfig, TrialConfig, trial_config
from kmnist_search.engine import compile_ahead, triton_net
from kmnist_search.engine.compile_ahead import compiled_ahead
from kmnist_search.engine.kernel_compiler import KernelCompiler
from kmnist_search.run.supervisor import NETS_COMPILED_AHEAD
from kmnist_search.study_file.builtin import find_study_file
from kmnist_search.study_file.parser import load
from tests.support import compiling
from tests.support.stand_in_gpu import StandInGpu

GPU = torch.device("cuda", 0)
TINY = {"patch_size": 14, "dim": 16, "token_width": 16, "channel_width": 32, "num_blocks": 1, "batch_size": 16}


def configs(*changes: dict[str, Any]) -> list[TrialConfig]:
    return [trial_config({**TINY, **change}, TrainConfig(epochs=1)) for change in changes]


def never() -> bool:
    return False


@pytest.fixture
def gpu() -> Iterator[StandInGpu]:
    with StandInGpu() as gpu:
        yield gpu


@pytest.fixture
def compiling_by(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpu: StandInGpu) -> Callable[[Any], None]:
    """Choose what the processes do, and keep their notes in a folder of this test."""
    monkeypatch.setattr(compile_ahead, "_folder", lambda: tmp_path)
    monkeypatch.setattr(compile_ahead, "usable_cores", lambda: 2)
    return lambda share: monkeypatch.setattr(compile_ahead, "compile_share", share)


@pytest.mark.parametrize("study", ["kmnist", "kmnist-cpu", "quickstart"])
def test_every_kernel_that_a_trial_of_a_built_in_study_needs_is_compiled_ahead(tmp_path: Path, study: str) -> None:
    found = _script(tmp_path, "sample", study)
    assert found["ahead"] >= 20
    assert found["missing"] == 0


@pytest.mark.slow
def test_processes_share_the_kernels_and_find_them_all_in_the_cache_afterwards(tmp_path: Path) -> None:
    first, second = (_script(tmp_path, "compile", share, "2") for share in "01")
    assert first["met"] == second["met"]
    assert abs(first["new"] - second["new"]) <= 1
    assert first["met"] - 1 <= first["new"] + second["new"] <= first["met"]  # two of them come to the same code
    assert _script(tmp_path, "compile", "0", "1") == {"met": first["met"], "new": 0}


def _script(cache: Path, *arguments: str) -> dict[str, int]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(cache)
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=800)
    assert done.returncode == 0, done.stderr
    result: dict[str, int] = json.loads(done.stdout)
    return result


def test_progress_is_told_and_the_same_study_is_not_compiled_again(compiling_by: Callable[[Any], None]) -> None:
    compiling_by(compiling.done_at_once)
    nets = configs(*({"num_blocks": blocks} for blocks in range(1, 9)))
    begins, *progress, ends = compiled_ahead(nets, GPU, is_stopped=never)
    assert begins == "compiling the kernels that this study needs on Stand-in GPU, once, in 2 processes ..."
    assert all(text.startswith("kernels compiled: ") for text in progress)
    assert ends.startswith("the kernels are compiled, in ")
    compiling_by(compiling.fails)
    assert list(compiled_ahead(nets, GPU, is_stopped=never)) == []
    assert list(compiled_ahead(nets[:3], GPU, is_stopped=never))  # another study


@pytest.mark.parametrize(
    ("share", "reason"), [(compiling.fails, " (no compiler was found)"), (compiling.dies, "")], ids=["error", "death"]
)
def test_what_fails_ahead_is_left_to_the_trials_and_tried_again_by_the_next_run(
    compiling_by: Callable[[Any], None], share: Any, reason: str
) -> None:
    compiling_by(share)
    for _ in range(2):
        *_, last = compiled_ahead(configs({}), GPU, is_stopped=never)
        assert last == f"not all kernels were compiled{reason}: a trial that needs another is delayed by some seconds"


def test_a_stop_ends_the_processes_at_once(compiling_by: Callable[[Any], None], tmp_path: Path) -> None:
    compiling_by(compiling.sleeps)
    (begins,) = compiled_ahead(configs({}), GPU, is_stopped=lambda: True)
    assert begins.startswith("compiling the kernels")
    assert not list(tmp_path.iterdir())


def test_nets_that_need_much_memory_are_compiled_in_fewer_processes(compiling_by: Callable[[Any], None]) -> None:
    compiling_by(compiling.done_at_once)
    StandInGpu.current().memory = 2**30
    begins, *_ = compiled_ahead(configs({"batch_size": 512, "dim": 512}), GPU, is_stopped=never)
    assert begins.endswith("in 1 process ...")


def test_nothing_is_compiled_ahead_for_nets_without_kernels(compiling_by: Callable[[Any], None]) -> None:
    compiling_by(compiling.fails)
    assert list(compiled_ahead(configs({"norm": "batch"}), GPU, is_stopped=never)) == []


def compile_share(share: str, shares: str) -> dict[str, int]:
    """Return the number of kernels that a net needs, and how many of them this process has compiled."""
    import triton
    from triton.backends.compiler import GPUTarget

    target = GPUTarget("cuda", 90, 32)
    triton.runtime.driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: target, get_current_device=lambda: 0, get_current_stream=lambda device: 0
        )
    )
    folder = Path(os.environ["TRITON_CACHE_DIR"])
    before = len(list(folder.rglob("*.cubin")))
    compiler = KernelCompiler(int(share), int(shares))
    (config,) = configs({"dropout": 0.1})
    with StandInGpu():
        compiler.compile_for(config, GPU)
    return {"met": len(compiler.met), "new": len(list(folder.rglob("*.cubin"))) - before}


def sample(study: str) -> dict[str, int]:
    """Return the number of kernels that the sampled trials of a study need, and how many others miss."""
    triton_net.product = _product_of_nothing  # the values of products do not matter, and they would take minutes
    file = load(find_study_file(study))
    compiler = KernelCompiler(share=-1, shares=1)  # it meets the kernels and compiles none
    for config in file.sample(NETS_COMPILED_AHEAD):
        compiler.compile_for(config, torch.device("cpu"))
    ahead = len(compiler.met)
    draw = random.Random(1)
    for _ in range(100):
        params = {name: draw.choice(spec.values()) for name, spec in file.space.items()}
        compiler.compile_for(file.config(params), torch.device("cpu"))
    return {"ahead": ahead, "missing": len(compiler.met) - ahead}


def _product_of_nothing(a_SIJ: torch.Tensor, b_SJK: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    return a_SIJ.new_empty(len(a_SIJ), a_SIJ.shape[1], b_SJK.shape[2]) if out is None else out


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    print(json.dumps(compile_share(*arguments) if what == "compile" else sample(*arguments)))  # noqa: T201
