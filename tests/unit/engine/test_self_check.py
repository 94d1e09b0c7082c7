"""Tests of engine/self_check.py on a stand-in GPU: wrong kernels and wrong graphs are found, right ones pass."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="there is no Triton for this platform")

from kmnist_search.config import TrainConfig, trial_config
from kmnist_search.engine import cuda_graphs, self_check, triton_net, triton_program, verdict
from kmnist_search.engine.self_check import gain, problem
from kmnist_search.errors import DeviceLostError
from tests.support import stand_in_gpu
from tests.support.stand_in_gpu import StandInGpu

pytestmark = [
    pytest.mark.usefixtures("one_thread", "few_kernel_programs"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]

GPU = torch.device("cuda", 0)
#: Small, because a step takes seconds in Triton's interpreter.
SHAPE = {"patch_size": 14, "dim": 12, "token_width": 6, "channel_width": 20, "num_blocks": 1, "batch_size": 4}
CASES = {"tiny": SHAPE}


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInGpu]:
    monkeypatch.setattr(cuda_graphs, "STEPS_PER_GRAPH", 1)
    with StandInGpu(bfloat16=False) as gpu:  # autocast of the stand-in is that of the CPU
        yield gpu


def test_kernels_and_graphs_that_give_the_results_of_plain_torch_have_no_problem() -> None:
    assert problem("graphs", GPU, CASES) == ""
    assert problem("kernels", GPU, CASES) == ""


def _times(factor: float) -> Callable[[Any], Any]:
    return lambda kernel: lambda *args, **kwargs: kernel(*args, **kwargs) * factor


def _without_decay(kernel: Any) -> Any:
    def step(buffers: Any, optimizer: Any, *rest: Any) -> None:
        kernel(buffers, optimizer.model_copy(update={"optimizer": "adam", "weight_decay": 1.0}), *rest)

    return step


@pytest.mark.parametrize(
    ("module", "kernel", "spoil"),
    [
        (triton_program, "make_patches", _times(1.03)),
        (triton_program, "optimizer_step", _without_decay),
        (triton_net, "bias_act_backward", _times(float("nan"))),
    ],
    ids=["patches 3 % too large", "another optimizer", "not a number"],
)
def test_a_kernel_that_computes_something_else_is_found(
    monkeypatch: pytest.MonkeyPatch, module: Any, kernel: str, spoil: Callable[[Any], Any]
) -> None:
    monkeypatch.setattr(module, kernel, spoil(getattr(module, kernel)))
    found = problem("kernels", GPU, CASES)
    assert found.startswith("the Triton kernels are ")
    assert found.endswith("% off plain torch (tiny, float32)")


def test_the_gain_of_each_part_is_measured_by_the_time_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {("TorchProgram", "EagerStepping"): 6.0, ("TorchProgram", "GraphStepping"): 3.0}
    outcome = self_check._outcome

    def timed(make: Any, kind: Any, device: torch.device) -> self_check.Outcome:
        assert outcome(make, kind, device).seconds > 0
        return replace(outcome(make, kind, device), seconds=seconds.get((make.func.__name__, kind.__name__), 2.0))

    monkeypatch.setattr(self_check, "_outcome", timed)
    assert gain("graphs", GPU, SHAPE) == 2.0
    assert gain("kernels", GPU, SHAPE) == 1.5


def test_graphs_that_leave_out_work_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    replay, replays = stand_in_gpu.Graph.replay, itertools.count()

    def every_other(self: stand_in_gpu.Graph) -> None:
        if next(replays) % 2:
            replay(self)

    monkeypatch.setattr(stand_in_gpu.Graph, "replay", every_other)
    assert problem("graphs", GPU, CASES).startswith("CUDA graphs are ")


def test_a_capture_that_fails_is_an_error(gpu: StandInGpu) -> None:
    gpu.fails_at_capture_end = True
    with pytest.raises(DeviceLostError, match="the capture of a CUDA graph failed"):
        problem("graphs", GPU, CASES)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
    ],
    ids=str,
)
def test_a_self_check_that_finds_no_room_says_so(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr(self_check, "problem", full)
    with pytest.raises(SystemExit) as ended:
        self_check.main("graphs", "cuda:0")
    assert ended.value.code == verdict.NOT_NOW


def test_the_cases_use_every_branch_of_a_recipe() -> None:
    configs = [
        trial_config({**self_check.SHAPE, **self_check.RECIPE, **values}, TrainConfig(epochs=1))
        for values in self_check.CASES.values()
    ]
    assert {config.optimizer.optimizer for config in configs} == {"adamw", "adam", "sgd"}
    assert {config.optimizer.decayed for config in configs} == {"matrices", "all"}
    assert {config.patch_mlp.norm for config in configs} == {"layer", "none"}  # batch norm has no kernels
    assert {config.patch_mlp.activation for config in configs} == {"gelu", "relu"}
    assert {config.patch_mlp.skip for config in configs} == {True, False}
    assert {bool(config.augment.mixup) for config in configs} == {True, False}
    assert {bool(config.optimizer.clip_norm) for config in configs} == {True, False}
    assert all(
        any(getattr(config.augment, name) for config in configs) for name in type(configs[0].augment).model_fields
    )
