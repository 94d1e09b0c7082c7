"""Tests of engine/triton_program.py, triton_net.py, flat_layout.py: steps written by hand equal those of autograd."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="there is no Triton for this platform")

from kmnist_search.config import DataConfig, TrainConfig, TrialConfig, cost, trial_config
from kmnist_search.data import search_data
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine import checkpoint
from kmnist_search.engine.batched import BatchedTraining
from kmnist_search.engine.flat_layout import FlatLayout
from kmnist_search.engine.replica import Epoch
from kmnist_search.engine.training import Training
from kmnist_search.model import Model, build

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("one_thread", "few_kernel_programs")]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

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

CONFIGS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "everything drawn, averaged": {
        "dropout": 0.2,
        "drop_path": 0.3,
        "mixup": 0.4,
        "shift": 1.5,
        "rotate": 10.0,
        "scale": 0.1,
        "shear": 8.0,
        "elastic": 1.0,
        "cutout": 6,
        "ema_decay": 0.9,
    },
    "no norm, no skip, relu, sgd": {"norm": "none", "skip": False, "activation": "relu", "optimizer": "sgd"},
    "widths of their own, adam, no clipping, all decayed": {
        "token_width": [6, 10],
        "channel_width": [20, 9],
        "optimizer": "adam",
        "weight_decay": 0.3,
        "decayed": "all",
        "clip_norm": 0.0,
        "patch_size": 7,
    },
}


@pytest.fixture(scope="module")
def data() -> SearchData:
    whole = search_data.load(DataConfig(dataset="digits"), Path())
    return SearchData(
        train_images=whole.train_images[:8],
        train_labels=whole.train_labels[:8],
        val_images=whole.val_images[:4],
        val_labels=whole.val_labels[:4],
        mean=whole.mean,
        std=whole.std,
        digest="few digits",
    )


def config_of(epochs: int = 2, **changes: Any) -> TrialConfig:
    return trial_config({**TINY, **changes}, TrainConfig(epochs=epochs, precision="float32"))


def train_through(training: Training) -> list[Epoch]:
    return list(training.epochs())


def take_epoch(batched: BatchedTraining) -> None:
    while not batched.advance():
        pass
    batched.read()


def train_batched(batched: BatchedTraining) -> None:
    while not batched.finished:
        take_epoch(batched)


def assert_same_model(config: TrialConfig, one: Model, other: Model, *, tolerance: float) -> None:
    expected = other.state_dict()
    for name, value in one.state_dict().items():
        # A norm takes away what is added to all features of a token: no gradient but noise, which adam follows.
        if config.patch_mlp.norm == "none" or not name.endswith("bias2_N"):
            torch.testing.assert_close(value, expected[name], rtol=10 * tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", CONFIGS)
def test_steps_of_the_triton_backend_equal_those_of_torch(data: SearchData, kind: str) -> None:
    config = config_of(**CONFIGS[kind])
    by_torch, by_triton = (
        Training(config, data, seed=3, device=DEVICE, backend=backend) for backend in ("torch", "triton")
    )
    for expected, epoch in zip(by_torch.epochs(), by_triton.epochs(), strict=True):
        assert epoch.train_loss == pytest.approx(expected.train_loss, rel=1e-4)
        assert epoch.val_loss == pytest.approx(expected.val_loss, rel=1e-4)
        assert (epoch.train_accuracy, epoch.val_accuracy) == (expected.train_accuracy, expected.val_accuracy)
    assert_same_model(config, by_triton.evaluated_model, by_torch.evaluated_model, tolerance=1e-4)
    expected_shares, shares = by_torch.val_probabilities(), by_triton.val_probabilities()
    assert expected_shares is not None
    assert shares == pytest.approx(expected_shares, abs=1e-4)


@pytest.mark.slow
def test_batched_trainings_give_the_results_of_each_alone(data: SearchData) -> None:
    config = config_of(**CONFIGS["everything drawn, averaged"], schedule="plateau", plateau_patience=0)
    batched = BatchedTraining(config, [data] * 2, seeds=[3, 4], device=DEVICE, backend="triton")
    train_batched(batched)
    for replica in batched.replicas:
        alone = Training(config, data, seed=replica.seed, device=DEVICE, backend="triton")
        train_through(alone)
        for epoch, expected in zip(replica.history, alone.history, strict=True):
            assert epoch.train_loss == pytest.approx(expected.train_loss, rel=1e-5)
            assert epoch.val_loss == pytest.approx(expected.val_loss, rel=1e-5)
        assert_same_model(config, batched.evaluated_model(replica.index), alone.evaluated_model, tolerance=1e-5)
    assert batched.replicas[0].history != batched.replicas[1].history


def test_batched_trainings_may_see_different_images(data: SearchData) -> None:
    other = replace(
        data,
        train_images=data.train_images.flip(0),
        train_labels=data.train_labels.flip(0),
        val_images=data.train_images[:4],
        val_labels=data.train_labels[:4],
        mean=0.2,
        std=0.4,
        digest="others",
    )
    config = config_of(epochs=1)
    batched = BatchedTraining(config, [data, other], seeds=[3, 3], device=DEVICE, backend="triton")
    train_batched(batched)
    for replica, own in zip(batched.replicas, (data, other), strict=True):
        alone = Training(config, own, seed=3, device=DEVICE, backend="triton")
        (expected,), (epoch,) = train_through(alone), replica.history
        assert epoch.train_loss == pytest.approx(expected.train_loss, rel=1e-5)
        assert epoch.val_loss == pytest.approx(expected.val_loss, rel=1e-5)
        assert replica.fingerprint() == alone.fingerprint()
    assert batched.replicas[0].history != batched.replicas[1].history


def test_bfloat16_steps_come_near_to_those_of_float32(data: SearchData) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        train = TrainConfig.model_validate({"epochs": 2, "precision": precision})
        training = Training(trial_config(TINY, train), data, seed=3, device=DEVICE, backend="triton")
        losses[precision] = [(epoch.train_loss, epoch.val_loss) for epoch in train_through(training)]
    for exact, rounded in zip(losses["float32"], losses["bfloat16"], strict=True):
        assert rounded == pytest.approx(exact, rel=0.02)
    assert losses["float32"] != losses["bfloat16"]


@pytest.mark.slow
def test_a_batched_training_resumes_to_the_same_weights(data: SearchData, tmp_path: Path) -> None:
    config = config_of(**CONFIGS["everything drawn, averaged"])

    whole, resumed = (
        BatchedTraining(config, [data] * 2, seeds=[3, 4], device=DEVICE, backend="triton") for _ in range(2)
    )
    take_epoch(whole)
    whole.advance()  # one step into the second epoch on a CPU
    checkpoint.save(whole, tmp_path / "checkpoint")
    assert checkpoint.resume(resumed, tmp_path / "checkpoint") is None
    for batched in (whole, resumed):
        take_epoch(batched)
    for replica, other in zip(whole.replicas, resumed.replicas, strict=True):
        assert replica.history == other.history
        for name, value in replica.state_dict()["program"].items():
            assert torch.equal(other.state_dict()["program"][name], value), name


def test_a_checkpoint_of_other_seeds_or_of_the_torch_backend_is_refused(data: SearchData, tmp_path: Path) -> None:
    config = config_of()
    path = tmp_path / "checkpoint"
    checkpoint.save(Training(config, data, seed=3, device=DEVICE, backend="torch"), path)
    by_triton = Training(config, data, seed=3, device=DEVICE, backend="triton")
    assert "'program': 'plain'" in (checkpoint.resume(by_triton, path) or "")
    checkpoint.save(BatchedTraining(config, [data] * 2, seeds=[3, 4], device=DEVICE, backend="triton"), path)
    other = BatchedTraining(config, [data] * 2, seeds=[3, 5], device=DEVICE, backend="triton")
    before = other.evaluated_model(0).state_dict()
    assert "'seed': 4" in (checkpoint.resume(other, path) or "")
    assert all(torch.equal(value, before[name]) for name, value in other.evaluated_model(0).state_dict().items())


def test_a_replica_that_diverges_leaves_the_others_as_they_are(data: SearchData) -> None:
    config = config_of()
    batched = BatchedTraining(config, [data] * 2, seeds=[3, 4], device=DEVICE, backend="triton")
    batched.advance()
    with batched._runner.on_stream():  # the default stream would not wait for the steps that are queued
        batched.replicas[0].program.sums_S4[0, 0] = torch.nan
    train_batched(batched)
    assert batched.diverged == {0}
    assert [len(replica.history) for replica in batched.replicas] == [0, 2]
    alone = Training(config, data, seed=4, device=DEVICE, backend="triton")
    assert train_through(alone)[-1].train_loss == pytest.approx(batched.replicas[1].history[-1].train_loss, rel=1e-5)


@pytest.mark.parametrize("kind", CONFIGS)
def test_weights_come_back_from_their_flat_buffer_as_they_were(kind: str) -> None:
    config = config_of(**CONFIGS[kind]).patch_mlp
    net, layout = build(config, 5), FlatLayout(config)
    row = layout.flattened(net)
    assert row.count_nonzero() <= cost.num_parameters(config) <= layout.size == len(row)
    for name, value in layout.unflattened(row).state_dict().items():
        assert torch.equal(value, net.state_dict()[name])
