"""Tests of engine/training.py, optimizer.py and checkpoint.py: what a training does, and that it resumes exactly."""

import itertools
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kmnist_search import model
from kmnist_search.config import DataConfig, OptimizerConfig, PatchMLPConfig, TrainConfig, TrialConfig, trial_config
from kmnist_search.data import search_data
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine import checkpoint, torch_program as plain_module
from kmnist_search.engine.augment import mixup
from kmnist_search.engine.optimizer import MovingAverage, average_share, make_optimizer
from kmnist_search.engine.schedule import lr_at
from kmnist_search.engine.torch_program import TorchProgram
from kmnist_search.engine.training import Training
from kmnist_search.errors import ConfigError, TrainingDivergedError
from kmnist_search.host.files import discard

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
REFERENCE = Path(__file__).with_name("reference_losses.json")
UPDATE_VARIABLE = "KMNIST_SEARCH_UPDATE_REFERENCE"

TINY: dict[str, Any] = {
    "patch_size": 7,
    "dim": 12,
    "token_width": 8,
    "channel_width": 16,
    "num_blocks": 2,
    "batch_size": 200,
    "learning_rate": 0.01,
}

EVERYTHING_DRAWN: dict[str, Any] = {
    "dropout": 0.1,
    "drop_path": 0.2,
    "mixup": 0.4,
    "shift": 1.5,
    "rotate": 5.0,
    "elastic": 1.0,
    "cutout": 6,
    "ema_decay": 0.9,
}

#: A rest is called after every epoch that does not halve the loss.
PLATEAU: dict[str, Any] = {
    "schedule": "plateau",
    "plateau_patience": 0,
    "plateau_threshold": 0.5,
    "decay_factor": 0.5,
    "warmup_share": 0.0,
}

RESUMED: dict[str, dict[str, Any]] = {
    "plain adamw": {},
    "adamw with everything drawn": {**EVERYTHING_DRAWN, **PLATEAU, "optimizer": "adamw"},
    "adam with steps and batch norm": {
        **EVERYTHING_DRAWN,
        "optimizer": "adam",
        "norm": "batch",
        "schedule": "step",
        "step_epochs": 1,
    },
    "sgd with plateaus and batch norm": {**EVERYTHING_DRAWN, **PLATEAU, "optimizer": "sgd", "norm": "batch"},
    "sgd without momentum": {"optimizer": "sgd", "momentum": 0.0, "mixup": 1.0, "schedule": "constant"},
}


@pytest.fixture(scope="module")
def data() -> SearchData:
    return search_data.load(DataConfig(dataset="digits"), Path())


def tiny(epochs: int = 3, **changes: Any) -> TrialConfig:
    return trial_config({**TINY, **changes}, TrainConfig(epochs=epochs, precision="float32"))


def training_of(config: TrialConfig, data: SearchData, *, seed: int = 0) -> Training:
    return Training(config, data, seed=seed, device=CPU)


def at_step(training: Training, step: int) -> Callable[[], bool]:
    return lambda: training.step == step


def plain(training: Training) -> TorchProgram:
    assert isinstance(training.program, TorchProgram)
    return training.program


def finish_epoch(training: Training) -> None:
    while not training.advance():
        pass


def take_steps(training: Training, count: int) -> None:
    """Take so many more steps of the current epoch, which must have one more to take."""
    for _ in range(count):
        assert not training.advance()


def leaves(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value in nested dictionaries and lists with its path."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield from leaves(value, f"{name}.{key}")
    elif isinstance(state, list):
        for number, value in enumerate(state):
            yield from leaves(value, f"{name}.{number}")
    else:
        yield name, state


def snapshot(training: Training) -> dict[str, Any]:
    """Return a copy of all that `training` is, but the time it took."""
    state = training.state_dict()
    del state["seconds"]
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in leaves(state)}


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names of what is not bit for bit the same in two snapshots."""
    assert one.keys() == other.keys()
    return [
        name
        for name, value in one.items()
        if not (torch.equal(value, other[name]) if isinstance(value, Tensor) else value == other[name])
    ]


def vectors_and_matrices(net: torch.nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    parameters = list(net.parameters())
    return [p for p in parameters if p.ndim < 2], [p for p in parameters if p.ndim >= 2]


def normalised(images: Tensor, data: SearchData) -> Tensor:
    return (images.float() / 255 - data.mean) / data.std


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9}], ids=["last weights", "averaged weights"])
def test_probabilities_of_the_validation_images_are_those_that_the_last_epoch_was_judged_by(
    data: SearchData, changes: dict[str, Any]
) -> None:
    training = training_of(tiny(2, **changes), data)
    assert training.val_probabilities() is None
    *_, last = training.epochs()
    found = training.val_probabilities()
    assert found is not None
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-5)
    labels = data.val_labels.numpy()
    assert (found.argmax(axis=1) == labels).mean() == last.val_accuracy
    assert -np.log(found[np.arange(len(labels)), labels]).mean() == pytest.approx(last.val_loss, rel=1e-4)
    resumed = training_of(tiny(2, **changes), data)
    resumed.load_state_dict(training.state_dict())
    assert resumed.val_probabilities() is None  # a checkpoint does not hold them


# Going on where a training was stopped.


@pytest.mark.parametrize("kind", RESUMED)
@pytest.mark.parametrize("stop_at", [0, 3, 5, 8, 10, 14], ids=lambda step: f"step {step} of 5 an epoch")
def test_a_resumed_training_ends_bit_for_bit_where_an_uninterrupted_one_does(
    data: SearchData, tmp_path: Path, kind: str, stop_at: int
) -> None:
    config = tiny(**RESUMED[kind])
    whole = training_of(config, data)
    assert whole.steps_per_epoch == 5
    epochs = list(whole.epochs())

    stopped = training_of(config, data)
    before = list(stopped.epochs(at_step(stopped, stop_at)))
    assert stopped.step == stop_at
    assert len(before) == max(stop_at - 1, 0) // 5  # a stop after an epoch's last step comes before its validation
    checkpoint.save(stopped, tmp_path / "checkpoint")

    resumed = training_of(config, data)
    assert checkpoint.resume(resumed, tmp_path / "checkpoint") is None
    assert differing(snapshot(stopped), snapshot(resumed)) == []
    after = list(resumed.epochs())
    assert before + after == epochs == resumed.history
    assert differing(snapshot(whole), snapshot(resumed)) == []


def test_a_training_stopped_before_every_step_ends_where_an_uninterrupted_one_does(
    data: SearchData, tmp_path: Path
) -> None:
    config = tiny(epochs=2, **RESUMED["adamw with everything drawn"])
    whole = training_of(config, data)
    list(whole.epochs())
    path = tmp_path / "checkpoint"
    for step in range(1, 10):
        training = training_of(config, data)
        assert checkpoint.resume(training, path) == (None if step > 1 else "there is no checkpoint")
        list(training.epochs(at_step(training, step)))
        checkpoint.save(training, path)
    last = training_of(config, data)
    assert checkpoint.resume(last, path) is None
    list(last.epochs())
    assert differing(snapshot(whole), snapshot(last)) == []


def test_a_stopped_training_resumes_bit_for_bit(data: SearchData) -> None:
    config = tiny(**RESUMED["adamw with everything drawn"])
    whole, stopped = training_of(config, data), training_of(config, data)
    epochs = list(whole.epochs())
    before = list(stopped.epochs(at_step(stopped, 7)))
    assert before + list(stopped.epochs()) == epochs
    assert differing(snapshot(whole), snapshot(stopped)) == []


def test_a_training_stopped_during_a_validation_resumes_bit_for_bit(
    data: SearchData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_module, "VAL_BATCH_SIZE", 10)
    config = tiny(**RESUMED["adamw with everything drawn"])
    whole, stopped = training_of(config, data), training_of(config, data)
    epochs = list(whole.epochs())
    asked = iter([False] * 7 + [True])  # before five steps, and before the third of several validation batches
    assert list(stopped.epochs(lambda: next(asked))) == []
    assert stopped.step == 5
    checkpoint.save(stopped, tmp_path / "checkpoint")
    resumed = training_of(config, data)
    assert checkpoint.resume(resumed, tmp_path / "checkpoint") is None
    for training in (stopped, resumed):
        assert list(training.epochs()) == epochs
        assert differing(snapshot(whole), snapshot(training)) == []


def test_a_finished_training_resumes_as_finished(data: SearchData, tmp_path: Path) -> None:
    training = training_of(tiny(epochs=1), data)
    list(training.epochs())
    checkpoint.save(training, tmp_path / "checkpoint")
    resumed = training_of(tiny(epochs=1), data)
    assert checkpoint.resume(resumed, tmp_path / "checkpoint") is None
    assert resumed.finished
    assert list(resumed.epochs()) == []
    assert resumed.seconds == training.seconds > 0


@pytest.mark.parametrize("kind", ["adamw with everything drawn", "sgd with plateaus and batch norm"])
def test_a_plateau_cuts_the_rate_of_these_resumed_trainings(data: SearchData, kind: str) -> None:
    training = training_of(tiny(**RESUMED[kind]), data)
    list(training.epochs())
    assert plain(training).optimizer.param_groups[0]["lr"] < TINY["learning_rate"]


@pytest.mark.parametrize(
    ("config", "seed", "split_seed", "named"),
    [
        (tiny(learning_rate=0.02), 0, 0, "config"),
        (tiny(epochs=4), 0, 0, "config"),
        (tiny(dim=16), 0, 0, "config"),
        (tiny(), 1, 0, "seed"),
        (tiny(), 0, 1, "data"),
    ],
    ids=["another rate", "more epochs", "another shape", "another seed", "another split"],
)
def test_a_checkpoint_of_another_training_is_refused_and_nothing_changed(
    data: SearchData, tmp_path: Path, config: TrialConfig, seed: int, split_seed: int, named: str
) -> None:
    saved = training_of(tiny(), data)
    take_steps(saved, 2)
    checkpoint.save(saved, tmp_path / "checkpoint")
    other_data = search_data.load(DataConfig(dataset="digits", split_seed=split_seed), Path())
    other = training_of(config, other_data, seed=seed)
    take_steps(other, 1)
    before = snapshot(other)
    reason = checkpoint.resume(other, tmp_path / "checkpoint")
    assert reason == f"the checkpoint is of {saved.fingerprint()}, this training is {other.fingerprint()}"
    assert saved.fingerprint()[named] != other.fingerprint()[named]
    assert differing(before, snapshot(other)) == []


class Opens:
    """Unpickled, it would make the file it was made with."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def damage(kind: str, path: Path, folder: Path, weights: bytes) -> None:
    """Damage the checkpoint at `path`, in which `weights` lie somewhere; code in it would write into `folder`."""
    content = path.read_bytes()
    assert content.count(weights) == 1
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "garbage":
            path.write_bytes(b"garbage" * 100)
        case "text":
            path.write_text("hello\n")
        case "cut in half":
            path.write_bytes(content[: len(content) // 2])
        case "cut at its end":
            path.write_bytes(content[:-1])
        case "one changed byte":
            path.write_bytes(content.replace(weights, bytes((weights[0] ^ 0xFF,)) + weights[1:]))
        case "a folder":
            path.unlink()
            path.mkdir()
        case "code":
            torch.save({"fingerprint": Opens(folder / "opened")}, path)
        case "pickled code":
            path.write_bytes(pickle.dumps(Opens(folder / "opened")))
        case "no state":
            torch.save({}, path)
        case "a list":
            torch.save([1, 2], path)
        case "half a state":
            state = torch.load(path, weights_only=True)
            del state["history"]
            torch.save(state, path)


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "garbage",
        "text",
        "cut in half",
        "cut at its end",
        "one changed byte",
        "a folder",
        "code",
        pytest.param("pickled code", marks=pytest.mark.filterwarnings("ignore:Detected pickle protocol")),
        "no state",
        "a list",
        "half a state",
    ],
)
def test_a_damaged_checkpoint_is_refused_and_nothing_changed(data: SearchData, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "checkpoint"
    training = training_of(tiny(ema_decay=0.9), data)
    take_steps(training, 2)
    checkpoint.save(training, path)
    weights = plain(training).model.state_dict()["stem.weight"].detach().numpy().tobytes()
    damage(kind, path, tmp_path, weights)
    fresh = training_of(tiny(ema_decay=0.9), data)
    before = snapshot(fresh)
    reason = checkpoint.resume(fresh, path)
    assert reason is not None
    assert reason.startswith(f"{path} is damaged: ")
    assert not (tmp_path / "opened").exists()
    assert differing(before, snapshot(fresh)) == []


def test_a_checkpoint_replaces_the_one_before_and_leaves_nothing_else(data: SearchData, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "checkpoint"
    training = training_of(tiny(), data)
    for _ in range(2):
        take_steps(training, 1)
        checkpoint.save(training, path)
    assert [found.name for found in path.parent.iterdir()] == ["checkpoint"]
    resumed = training_of(tiny(), data)
    assert checkpoint.resume(resumed, path) is None
    assert resumed.step == 2
    discard(path)
    discard(path)
    assert list(path.parent.iterdir()) == []
    assert checkpoint.resume(resumed, path) == "there is no checkpoint"


def test_a_checkpoint_that_cannot_be_put_in_place_says_so(data: SearchData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        checkpoint.save(training_of(tiny(), data), tmp_path / "file" / "checkpoint")
    assert (tmp_path / "file").read_text() == "in the way"


# Seeds.


def test_the_same_seed_gives_the_same_epochs_and_another_one_others(data: SearchData) -> None:
    config = tiny(epochs=2, **EVERYTHING_DRAWN)
    once, again, other = (list(training_of(config, data, seed=seed).epochs()) for seed in (3, 3, 4))
    assert once == again
    assert all(a.train_loss != b.train_loss and a.val_loss != b.val_loss for a, b in zip(once, other, strict=True))


def test_two_trainings_beside_each_other_do_not_disturb_one_another(data: SearchData) -> None:
    config = tiny(epochs=2, **EVERYTHING_DRAWN)
    alone = list(training_of(config, data).epochs())
    process_before = torch.get_rng_state()
    first, second = training_of(config, data).epochs(), training_of(config, data, seed=1).epochs()
    assert [epoch for pair in zip(first, second, strict=True) for epoch in pair[:1]] == alone
    assert torch.equal(torch.get_rng_state(), process_before)


# One step.


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_weight_decay_acts_on_matrices_only(optimizer: str) -> None:
    net = model.build(PatchMLPConfig(patch_size=7, dim=12, num_blocks=2), 0)
    config = OptimizerConfig.model_validate({"optimizer": optimizer, "learning_rate": 0.1, "weight_decay": 0.5})
    made = make_optimizer(net, config)
    assert {id(p) for group in made.param_groups for p in group["params"]} == {id(p) for p in net.parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    vectors, matrices = vectors_and_matrices(net)
    vectors_before, matrices_before = [v.clone() for v in vectors], [m.clone() for m in matrices]
    made.step()
    assert all(torch.equal(after, before) for after, before in zip(vectors, vectors_before, strict=True))
    for after, before in zip(matrices, matrices_before, strict=True):
        if optimizer == "adam":  # the decay is a gradient there, and the first step is the sign of it
            torch.testing.assert_close(after, before - 0.1 * before.sign(), rtol=1e-3, atol=1e-4)
        else:
            torch.testing.assert_close(after, before * (1 - 0.1 * 0.5))


def test_the_optimizers_are_those_named_with_the_values_given() -> None:
    net = torch.nn.Linear(2, 2)
    adamw = make_optimizer(net, OptimizerConfig(optimizer="adamw", beta2=0.9, learning_rate=0.3))
    adam = make_optimizer(net, OptimizerConfig(optimizer="adam", beta2=0.8))
    sgd = make_optimizer(net, OptimizerConfig(optimizer="sgd", momentum=0.7))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.defaults["betas"] == (0.9, 0.9)
    assert adamw.defaults["lr"] == 0.3
    assert type(adam) is torch.optim.Adam
    assert adam.defaults["betas"] == (0.9, 0.8)
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["momentum"] == 0.7


def change_of_the_first_step(data: SearchData, **changes: Any) -> float:
    config = tiny(
        optimizer="sgd",
        learning_rate=1.0,
        momentum=0.0,
        weight_decay=0.0,
        schedule="constant",
        warmup_share=0.0,
        **changes,
    )
    training = training_of(config, data)
    before = torch.nn.utils.parameters_to_vector(plain(training).model.parameters()).detach().clone()
    take_steps(training, 1)
    after = torch.nn.utils.parameters_to_vector(plain(training).model.parameters()).detach()
    return float((after - before).norm())


def test_a_gradient_is_clipped_to_the_norm_given_and_0_clips_nothing(data: SearchData) -> None:
    unclipped = change_of_the_first_step(data, clip_norm=0.0)
    assert unclipped > 0.1
    assert change_of_the_first_step(data, clip_norm=0.1) == pytest.approx(0.1, rel=1e-3)
    assert change_of_the_first_step(data, clip_norm=0.01) == pytest.approx(0.01, rel=1e-3)
    assert change_of_the_first_step(data, clip_norm=unclipped * 2) == pytest.approx(unclipped, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_losses_are_smoothed_in_training_and_plain_in_validation(data: SearchData, smoothing: float) -> None:
    """One step on all images, so small that the weights stay as they were built."""
    images = len(data.train_images)
    config = tiny(
        epochs=1, batch_size=images, label_smoothing=smoothing, learning_rate=1e-30, optimizer="sgd", weight_decay=0.0
    )
    (epoch,) = training_of(config, data).epochs()
    net = model.build(config.model, 0).eval()
    with torch.no_grad():
        train = F.log_softmax(net(normalised(data.train_images, data)).double(), dim=1)
        val = F.log_softmax(net(normalised(data.val_images, data)).double(), dim=1)
    target = F.one_hot(data.train_labels, 10) * (1 - smoothing) + smoothing / 10
    assert epoch.train_loss == pytest.approx(-(target * train).sum(dim=1).mean().item(), rel=1e-5)
    assert epoch.train_accuracy == pytest.approx((train.argmax(dim=1) == data.train_labels).double().mean().item())
    assert epoch.val_loss == pytest.approx(F.nll_loss(val, data.val_labels).item(), rel=1e-5)
    assert epoch.val_accuracy == pytest.approx((val.argmax(dim=1) == data.val_labels).double().mean().item())


def test_mixup_blends_the_labels_as_it_blends_the_images(data: SearchData) -> None:
    training = training_of(tiny(mixup=0.4, label_smoothing=0.1), data)
    images, labels = data.train_images[:50], data.train_labels[:50]
    same_generator = torch.Generator()
    same_generator.set_state(plain(training).generators[0].get_state())
    with torch.no_grad():
        loss, correct = plain(training)._loss(images, labels)
        mixed, partners, share = mixup(images / 255, 0.4, same_generator)
        log_probabilities = F.log_softmax(plain(training).model((mixed - data.mean) / data.std).double(), dim=1)
    blended = share[:, None] * F.one_hot(labels, 10) + (1 - share[:, None]) * F.one_hot(labels[partners], 10)
    target = blended * 0.9 + 0.1 / 10
    assert loss.item() == pytest.approx(-(target * log_probabilities).sum(dim=1).mean().item(), rel=1e-5)
    assert correct.item() == (log_probabilities.argmax(dim=1) == blended.argmax(dim=1)).sum().item()


def test_the_rate_of_every_step_is_that_of_the_schedule(data: SearchData) -> None:
    config = tiny(epochs=2)
    training = training_of(config, data)
    for step in range(10):
        training.advance()
        expected = lr_at(step, config.schedule, peak=0.01, total_steps=10, steps_per_epoch=5, losses=[])
        assert [group["lr"] for group in plain(training).optimizer.param_groups] == [expected] * 2
        if step % 5 == 4:  # the validation is left
            finish_epoch(training)
            training.read()
    assert training.finished


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_the_moving_average_follows_the_weights_and_is_what_is_validated(data: SearchData, norm: str) -> None:
    config = tiny(epochs=1, ema_decay=0.3, norm=norm, learning_rate=0.05, warmup_share=0.0)
    training = training_of(config, data)
    expected = {name: value.double() for name, value in plain(training).model.state_dict().items()}
    for step in range(5):
        training.advance()
        decay = min(0.3, (1 + step) / (10 + step))
        for name, value in plain(training).model.state_dict().items():
            expected[name] = (
                expected[name] * decay + value.double() * (1 - decay) if value.is_floating_point() else value.double()
            )
    average = plain(training).average
    assert average is not None
    for name, value in average.model.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-6)
    finish_epoch(training)
    epoch = training.read()
    with torch.no_grad():
        of_average, of_model = (
            F.cross_entropy(net.eval()(normalised(data.val_images, data)), data.val_labels).item()
            for net in (average.model, plain(training).model)
        )
    assert epoch.val_loss == pytest.approx(of_average, rel=1e-5)
    assert epoch.val_loss != pytest.approx(of_model, rel=1e-4)


def test_the_moving_average_of_weights_at_rest_stays_where_they_are() -> None:
    net = torch.nn.Linear(3, 2)
    average = MovingAverage(net, 0.9)
    for step in range(5):
        average.update(net, torch.tensor(average_share(0.9, step)))
    assert all(torch.equal(a, b) for a, b in zip(average.model.parameters(), net.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in average.model.parameters())


# Whole trainings.


def test_a_training_learns_and_says_how_far_it_is(data: SearchData) -> None:
    training = training_of(tiny(epochs=8, learning_rate=0.03, label_smoothing=0.0), data)
    epochs = []
    for epoch in training.epochs():
        epochs.append(epoch)
        assert training.step == 5 * epoch.number
        assert training.images_trained == 1000 * epoch.number
    assert [epoch.number for epoch in epochs] == list(range(1, 9))
    assert training.finished
    assert training.history == epochs
    assert epochs[-1].train_loss < epochs[0].train_loss / 2
    assert (epochs[-1].val_accuracy or 0) > 0.7
    assert training.seconds > 0


def test_an_epoch_is_over_after_its_last_step_and_its_last_validation_batch(data: SearchData) -> None:
    training = training_of(tiny(epochs=2), data)
    for _ in range(2):
        assert [training.advance() for _ in range(6)] == [False] * 5 + [True]
        assert training.advance()  # there is no more to it, until it is read
        training.read()


def test_a_training_without_validation_images_says_so_and_sees_plateaus_by_its_training_loss() -> None:
    whole = search_data.load_training_set("digits", Path()).split(DataConfig().whole())
    assert (len(whole.train_images), len(whole.val_images)) == (1437, 0)
    training = training_of(tiny(epochs=3, **PLATEAU), whole)
    epochs = list(training.epochs())
    assert [(epoch.val_loss, epoch.val_accuracy) for epoch in epochs] == [(None, None)] * 3
    assert [epoch.plateau_loss for epoch in epochs] == [epoch.train_loss for epoch in epochs]
    assert plain(training).optimizer.param_groups[0]["lr"] < 0.01


def test_images_are_resized_where_the_model_wants_them_larger(data: SearchData) -> None:
    training = training_of(tiny(epochs=1, image_size=32, patch_size=8), data)
    assert training.data.train_images.shape[1:] == (32, 32)
    assert len(list(training.epochs())) == 1


@pytest.mark.parametrize("has", [True, False])
def test_bfloat16_is_used_where_the_cpu_multiplies_it_itself(
    data: SearchData, monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    losses = {}
    for precision in ("auto", "float32", "bfloat16"):
        train = TrainConfig.model_validate({"epochs": 1, "precision": precision})
        (epoch,) = training_of(trial_config(TINY, train), data).epochs()
        losses[precision] = epoch.train_loss
    assert losses["auto"] == losses["bfloat16" if has else "float32"]
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_a_batch_larger_than_the_training_part_is_refused(data: SearchData) -> None:
    images = len(data.train_images)
    assert training_of(tiny(batch_size=images), data).steps_per_epoch == 1
    with pytest.raises(ConfigError) as caught:
        training_of(tiny(batch_size=images + 1), data)
    assert str(caught.value) == f"batch_size {images + 1} is more than the {images:,} training images"


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "learning_rate": 1e30},
        {"optimizer": "sgd", "learning_rate": 1e30, "norm": "none", "clip_norm": 0.0},
        {"optimizer": "adamw", "learning_rate": 1e25, "norm": "none", "ema_decay": 0.9},
    ],
    ids=["sgd", "sgd without norms and clipping", "adamw with a moving average"],
)
def test_a_loss_that_is_not_finite_ends_the_training_at_once(data: SearchData, changes: dict[str, Any]) -> None:
    training = training_of(tiny(batch_size=20, warmup_share=0.0, **changes), data)
    with pytest.raises(TrainingDivergedError) as caught:
        list(training.epochs())
    assert training.step <= 3 < training.steps_per_epoch
    assert str(caught.value) == f"the loss is not finite in epoch 1, by step {training.step}"
    assert training.history == []
    assert not training.finished


# Numbers recorded once.


def first_losses(data: SearchData) -> list[float]:
    config = tiny(
        batch_size=32,
        epochs=1,
        num_blocks=2,
        dropout=0.1,
        drop_path=0.1,
        shift=1.5,
        rotate=5.0,
        cutout=6,
        schedule="cosine",
        optimizer="adamw",
    )
    training = training_of(config, data)
    totals = [0.0]
    for _ in range(20):
        take_steps(training, 1)
        totals.append(float(training.state_dict()["sums"][0]))
    return [later - earlier for earlier, later in itertools.pairwise(totals)]


def test_the_first_20_losses_are_those_recorded(data: SearchData) -> None:
    losses = first_losses(data)
    if os.environ.get(UPDATE_VARIABLE) == "1":
        REFERENCE.write_text(json.dumps({"losses": [round(loss, 7) for loss in losses]}, indent=2) + "\n")
    assert REFERENCE.is_file(), f"{REFERENCE.name} is missing: record it with {UPDATE_VARIABLE}=1"
    recorded = json.loads(REFERENCE.read_text())["losses"]
    assert len(recorded) == 20
    assert losses == pytest.approx(recorded, rel=1e-4)


def test_weight_decay_acts_on_matrices_or_on_all_weights_as_torch_does_by_itself(data: SearchData) -> None:
    sgd = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.5, "learning_rate": 0.1}
    steps = {}
    for decayed in ("matrices", "all"):
        net = model.build(tiny().patch_mlp, 0)
        optimizer = make_optimizer(net, OptimizerConfig.model_validate({**sgd, "decayed": decayed}))
        before = {name: value.clone() for name, value in net.state_dict().items()}
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        steps[decayed] = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
        assert all(torch.allclose(net.state_dict()[name], 0.95 * before[name]) for name in steps[decayed])
    matrices = {name for name, value in net.state_dict().items() if value.ndim == 2}
    assert steps["matrices"] == matrices
    assert steps["all"] == set(net.state_dict()) - {name for name in before if not before[name].any()}
