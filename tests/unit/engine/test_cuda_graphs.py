"""Tests of engine/cuda_graphs.py on a stand-in GPU: replayed steps do what the same steps do uncaptured."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kmnist_search.config import DataConfig, TrainConfig, TrialConfig, trial_config
from kmnist_search.data import search_data
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine import cuda_graphs
from kmnist_search.engine.backends import HAS_TRITON, Backend
from kmnist_search.engine.cuda_graphs import GraphStepping
from kmnist_search.engine.stepping import EagerStepping
from kmnist_search.engine.training import Training, trainings_together
from kmnist_search.engine.verdict import verdict
from kmnist_search.errors import DeviceLostError
from tests.support.stand_in_gpu import GpuTensor, NotCapturableError, StandInGpu

pytestmark = pytest.mark.usefixtures("one_thread", "few_kernel_programs")

GPU = torch.device("cuda", 0)
#: Steps in one graph: few, because a step takes seconds in Triton's interpreter.
STEPS_PER_GRAPH = 2

TINY: dict[str, Any] = {
    "patch_size": 14,
    "dim": 12,
    "token_width": 6,
    "channel_width": 20,
    "num_blocks": 2,
    "batch_size": 4,
    "learning_rate": 0.01,
    "warmup_share": 0.0,
}
EVERYTHING_DRAWN: dict[str, Any] = {
    "dropout": 0.2,
    "drop_path": 0.3,
    "mixup": 0.4,
    "shift": 1.5,
    "rotate": 10.0,
    "elastic": 1.0,
    "cutout": 6,
    "ema_decay": 0.9,
}
LAYERS = {
    "patch_size": 14,
    "layers": ["linear features 8", "batch_norm features", "relu", "dropout 0.2", "linear tokens 4", "mean tokens"],
}

KINDS: dict[str, dict[str, Any]] = {
    "little": {},
    "everything drawn": EVERYTHING_DRAWN,
    "sgd": {"optimizer": "sgd", "norm": "none"},
    "adam without clipping": {"optimizer": "adam", "clip_norm": 0.0, "ema_decay": 0.9},
    "mixup": {"mixup": 0.4},
    "drop path": {"drop_path": 0.3},
}
OF_TORCH: dict[str, dict[str, Any]] = {
    "batch norm": {"norm": "batch", "ema_decay": 0.9},
    "layers": LAYERS,
}
MATRIX: list[tuple[Backend, str]] = [
    *(("torch", kind) for kind in (*KINDS, *OF_TORCH)),
    *(("triton", kind) for kind in KINDS if HAS_TRITON),
]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInGpu]:
    monkeypatch.setattr(cuda_graphs, "STEPS_PER_GRAPH", STEPS_PER_GRAPH)
    with StandInGpu() as gpu:
        yield gpu


@pytest.fixture(scope="module")
def digits() -> SearchData:
    return search_data.load(DataConfig(dataset="digits"), Path())


@pytest.fixture(params=["split", "whole"])
def data(request: pytest.FixtureRequest, digits: SearchData) -> SearchData:
    return few(digits, val_images=5 if request.param == "split" else 0)


def few(digits: SearchData, *, val_images: int) -> SearchData:
    """Return so few images that an epoch has one graph of steps and a step left over."""
    images = 4 * (STEPS_PER_GRAPH + 1)
    return SearchData(
        train_images=digits.train_images[:images],
        train_labels=digits.train_labels[:images],
        val_images=digits.val_images[:val_images],
        val_labels=digits.val_labels[:val_images],
        mean=digits.mean,
        std=digits.std,
        digest="few digits",
    )


def config_of(kind: str = "little", *, epochs: int = 1) -> TrialConfig:
    changes = {**KINDS, **OF_TORCH}[kind]
    model = {} if "layers" in changes else TINY
    shared = {"batch_size": 4, "learning_rate": 0.01, "warmup_share": 0.0}
    return trial_config({**shared, **model, **changes}, TrainConfig(epochs=epochs, precision="float32"))


def uncaptured(training: Training) -> Training:
    training._runner._stepping = EagerStepping(training.program)
    return training


def weights_of(training: Training) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in training.evaluated_model.state_dict().items()}


def advance(training: Training) -> None:
    while not training.advance():
        pass


@pytest.mark.parametrize(("backend", "kind"), MATRIX, ids=lambda value: str(value))
def test_replayed_steps_do_what_the_same_steps_do_uncaptured(
    gpu: StandInGpu, data: SearchData, backend: Backend, kind: str
) -> None:
    captured, eager = (Training(config_of(kind), data, seed=1, device=GPU, backend=backend) for _ in range(2))
    assert isinstance(captured._runner._stepping, GraphStepping)
    assert list(captured.epochs()) == list(uncaptured(eager).epochs())
    assert gpu.captures == (3 if len(data.val_images) else 2)
    weights, expected = weights_of(captured), weights_of(eager)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("backend", "kind"),
    [("torch", "everything drawn"), ("torch", "layers"), ("triton", "everything drawn")],
    ids=lambda value: str(value),
)
def test_a_training_resumed_in_the_middle_of_an_epoch_ends_as_one_that_was_not_interrupted(
    gpu: StandInGpu, digits: SearchData, backend: Backend, kind: str
) -> None:
    data, config = few(digits, val_images=5), config_of(kind, epochs=2)
    whole, first, second = (Training(config, data, seed=1, device=GPU, backend=backend) for _ in range(3))
    advance(first)
    first.read()
    first.advance()
    first.program.begin([first.begin_epoch()])  # the plan that the interrupted epoch has
    position = first.position
    second.load_state_dict(first.state_dict())
    assert second.position == position
    epochs = list(whole.epochs())
    assert list(second.epochs()) == epochs[1:]
    weights, expected = weights_of(second), weights_of(whole)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.skipif(not HAS_TRITON, reason="there is no Triton for this platform")
def test_a_batched_training_in_graphs_does_what_it_does_uncaptured(gpu: StandInGpu, digits: SearchData) -> None:
    data = few(digits, val_images=5)
    config = config_of("mixup")
    captured, eager = (
        trainings_together(config, [data, data], seeds=[1, 2], device=GPU, backend="triton") for _ in range(2)
    )
    eager[0]._runner._stepping = EagerStepping(eager[0].program)
    for trainings in (captured, eager):
        advance(trainings[0])
    assert [training.read() for training in captured] == [training.read() for training in eager]


@pytest.mark.parametrize("backend", ["torch", *(["triton"] if HAS_TRITON else [])])
def test_nothing_waits_for_the_gpu_within_an_epoch(gpu: StandInGpu, digits: SearchData, backend: Backend) -> None:
    training = Training(
        config_of("everything drawn", epochs=2), few(digits, val_images=5), seed=1, device=GPU, backend=backend
    )
    advance(training)
    training.read()
    gpu.waits.clear()
    advance(training)
    assert gpu.waits == []
    training.read()
    assert gpu.waits == ["tolist"]


def test_new_graphs_are_captured_after_a_state_was_loaded(gpu: StandInGpu, digits: SearchData) -> None:
    training = Training(config_of(epochs=2), few(digits, val_images=5), seed=1, device=GPU, backend="torch")
    advance(training)
    training.read()
    training.load_state_dict(training.state_dict())
    captures = gpu.captures
    advance(training)
    assert gpu.captures == captures + 3


def test_products_in_bfloat16_are_summed_in_float32(gpu: StandInGpu, digits: SearchData) -> None:
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = True
    Training(config_of(), few(digits, val_images=5), seed=1, device=GPU, backend="torch")
    assert torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction is False


@pytest.mark.parametrize("fault", ["inside", "at its end"])
def test_a_capture_that_fails_says_that_the_process_has_lost_its_gpu(
    gpu: StandInGpu, digits: SearchData, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(config_of(), few(digits, val_images=5), seed=1, device=GPU, backend="torch")
    if fault == "at its end":
        gpu.fails_at_capture_end = True
    else:
        step = training.program.train_step

        def reads_back(offset: int = 0) -> None:
            step(offset)
            if gpu.capturing is not None:
                training.program.sums_S4.sum().item()

        monkeypatch.setattr(training.program, "train_step", reads_back)
    with pytest.raises(DeviceLostError, match="the capture of a CUDA graph failed: "):
        advance(training)


@pytest.mark.parametrize(
    ("error", "is_given_up"),
    [
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), False),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False),
        (torch.OutOfMemoryError("CUDA out of memory."), False),
        (torch.AcceleratorError("CUDA error: operation not permitted when stream is capturing"), True),
        (RuntimeError("Triton Error [CUDA]: unknown"), True),
    ],
    ids=str,
)
def test_graphs_are_given_up_only_if_a_capture_itself_was_at_fault(
    gpu: StandInGpu, digits: SearchData, monkeypatch: pytest.MonkeyPatch, error: Exception, is_given_up: bool
) -> None:
    training = Training(config_of(), few(digits, val_images=5), seed=1, device=GPU, backend="torch")
    step = training.program.train_step

    def fails(offset: int = 0) -> None:
        if gpu.capturing is not None:
            raise error
        step(offset)

    monkeypatch.setattr(training.program, "train_step", fails)
    with pytest.raises(DeviceLostError):
        advance(training)
    assert bool(verdict(GPU).graphs) is is_given_up


def test_the_stand_in_refuses_what_a_capture_forbids(gpu: StandInGpu) -> None:
    x, mask = torch.ones(4, device=GPU), torch.ones(4, dtype=torch.bool, device=GPU)
    own, other = (torch.Generator(GPU) for _ in range(2))
    forbidden: dict[str, Callable[[], Any]] = {
        "a value is read back": lambda: x.sum().item(),
        "a shape depends on data": lambda: x[mask],
        "not registered": lambda: x.uniform_(generator=other),
        "pageable memory": lambda: x.copy_(torch.zeros(4)),
        "waits for a stream": lambda: gpu.stream.synchronize(),
    }
    with torch.cuda.stream(torch.cuda.Stream(GPU)):
        for reason, act in forbidden.items():
            graph = torch.cuda.CUDAGraph()
            graph.register_generator_state(own)
            graph.capture_begin()
            with pytest.raises(NotCapturableError, match=reason if "read" not in reason else "permitted"):
                act()
            with pytest.raises(RuntimeError, match="previous error"):
                graph.capture_end()


def test_the_stand_in_undoes_what_was_captured_and_notices_memory_that_was_freed(gpu: StandInGpu) -> None:
    x, y = torch.ones(4, device=GPU), torch.ones(4, device=GPU)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(torch.cuda.Stream(GPU)):
        graph.capture_begin()
        z = x * 2
        y += z
        graph.capture_end()
    assert y.tolist() == [1.0] * 4
    assert z.isnan().all()
    graph.replay()
    graph.replay()
    assert y.tolist() == [5.0] * 4
    assert isinstance(z, GpuTensor)
    del x
    with pytest.raises(RuntimeError, match="has been freed"):
        graph.replay()
