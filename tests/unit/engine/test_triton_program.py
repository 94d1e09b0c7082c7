"""Tests of engine/triton_program.py, triton_net.py, flat_layout.py: steps written by hand equal those of autograd."""

from collections.abc import Sequence
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
from kmnist_search.engine.flat_layout import FlatLayout
from kmnist_search.engine.replica import Epoch
from kmnist_search.engine.training import Training, trainings_together
from kmnist_search.errors import TrainingDivergedError
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


def train_together(trainings: Sequence[Training]) -> None:
    while not all(training.finished for training in trainings):
        for training in trainings:
            if not training.finished and training.advance():
                training.read()


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
    batched = trainings_together(config, [data] * 2, seeds=[3, 4], device=DEVICE, backend="triton")
    train_together(batched)
    for replica in batched:
        alone = Training(config, data, seed=replica.seed, device=DEVICE, backend="triton")
        train_through(alone)
        for epoch, expected in zip(replica.history, alone.history, strict=True):
            assert epoch.train_loss == pytest.approx(expected.train_loss, rel=1e-5)
            assert epoch.val_loss == pytest.approx(expected.val_loss, rel=1e-5)
        assert_same_model(config, replica.evaluated_model, alone.evaluated_model, tolerance=1e-5)
    assert batched[0].history != batched[1].history


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
    batched = trainings_together(config, [data, other], seeds=[3, 3], device=DEVICE, backend="triton")
    train_together(batched)
    for replica, own in zip(batched, (data, other), strict=True):
        alone = Training(config, own, seed=3, device=DEVICE, backend="triton")
        (expected,), (epoch,) = train_through(alone), replica.history
        assert epoch.train_loss == pytest.approx(expected.train_loss, rel=1e-5)
        assert epoch.val_loss == pytest.approx(expected.val_loss, rel=1e-5)
        assert replica.fingerprint() == alone.fingerprint()
    assert batched[0].history != batched[1].history


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
def test_a_training_that_was_computed_with_others_resumes_alone(data: SearchData, tmp_path: Path) -> None:
    config = config_of(**CONFIGS["everything drawn, averaged"])
    first, second = trainings_together(config, [data] * 2, seeds=[3, 4], device=DEVICE, backend="triton")
    while not first.advance():
        second.advance()
    first.read()
    second.read()
    second.advance()  # one step into the second epoch on a CPU
    checkpoint.save(second, tmp_path / "checkpoint")
    resumed = Training(config, data, seed=4, device=DEVICE, backend="triton")
    assert checkpoint.resume(resumed, tmp_path / "checkpoint") is None
    assert (resumed.history, resumed.position) == (second.history, second.position)
    train_together([first, second])
    for epoch, expected in zip(train_through(resumed), second.history[1:], strict=True):
        assert epoch.train_loss == pytest.approx(expected.train_loss, rel=1e-5)
        assert epoch.val_loss == pytest.approx(expected.val_loss, rel=1e-5)


def test_a_training_that_leaves_does_not_hold_up_the_others(data: SearchData) -> None:
    trainings = trainings_together(config_of(), [data] * 2, seeds=[3, 4], device=DEVICE, backend="triton")
    first, second = trainings
    while not first.advance():
        pass
    second.read()
    assert not second.advance()  # the other has not read yet
    first.leave()
    train_together([second])
    assert (len(first.history), len(second.history)) == (0, 2)
    alone = Training(config_of(), data, seed=4, device=DEVICE, backend="triton")
    assert train_through(alone)[-1].train_loss == pytest.approx(second.history[-1].train_loss, rel=1e-5)


def test_what_fails_in_one_of_the_trainings_fails_in_all(data: SearchData, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = trainings_together(config_of(), [data] * 2, seeds=[3, 4], device=DEVICE, backend="triton")

    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(first._runner, "advance", broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            first.advance()
    with pytest.raises(RuntimeError, match="out of memory"):
        second.advance()


def test_a_checkpoint_of_other_seeds_or_of_the_torch_backend_is_refused(data: SearchData, tmp_path: Path) -> None:
    config = config_of()
    path = tmp_path / "checkpoint"
    checkpoint.save(Training(config, data, seed=3, device=DEVICE, backend="torch"), path)
    by_triton = Training(config, data, seed=3, device=DEVICE, backend="triton")
    assert "'program': 'plain'" in (checkpoint.resume(by_triton, path) or "")
    checkpoint.save(Training(config, data, seed=4, device=DEVICE, backend="triton"), path)
    before = by_triton.evaluated_model.state_dict()
    assert "'seed': 4" in (checkpoint.resume(by_triton, path) or "")
    assert all(torch.equal(value, before[name]) for name, value in by_triton.evaluated_model.state_dict().items())


def test_a_training_that_diverges_leaves_the_others_as_they_are(data: SearchData) -> None:
    config = config_of()
    first, second = trainings_together(config, [data] * 2, seeds=[3, 4], device=DEVICE, backend="triton")
    first.advance()
    with first._runner.on_stream():  # the default stream would not wait for the steps that are queued
        first.program.sums_S4[0, 0] = torch.nan
    while not first.advance():
        pass
    with pytest.raises(TrainingDivergedError):
        first.read()
    first.leave()
    train_together([second])
    assert [len(training.history) for training in (first, second)] == [0, 2]
    alone = Training(config, data, seed=4, device=DEVICE, backend="triton")
    assert train_through(alone)[-1].train_loss == pytest.approx(second.history[-1].train_loss, rel=1e-5)


@pytest.mark.parametrize("kind", CONFIGS)
def test_weights_come_back_from_their_flat_buffer_as_they_were(kind: str) -> None:
    config = config_of(**CONFIGS[kind]).patch_mlp
    net, layout = build(config, 5), FlatLayout(config)
    row = layout.flattened(net)
    assert row.count_nonzero() <= cost.num_parameters(config) <= layout.size == len(row)
    for name, value in layout.unflattened(row).state_dict().items():
        assert torch.equal(value, net.state_dict()[name])
