"""Benchmark of common training loops: how much longer they take than ours for the same net, recipe and images.

    python tests/benchmarks/loops.py [--device cuda] [--net reference] [--seconds 2.5] [--json]

The loops use the same augmentation as far as torchvision has it, clip gradients as the configuration says, and keep the
learning rate constant. All are measured in this process; on a CPU, cpu.py starts a process for each.
"""

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from kmnist_search.bench import nets
from kmnist_search.bench.pace import Pace, synchronise, training_pace
from kmnist_search.bench.runners import reason_of
from kmnist_search.config import AugmentConfig, TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.augment import augment
from kmnist_search.model.patch_mlp import PatchMLP

NETS = {"tiny": nets.TINY, "small": nets.SMALL, "reference": nets.REFERENCE, "large": nets.LARGE}
#: Batches that a DataLoader's worker fetches ahead; drawn before the clock starts, since they would count as fast.
PREFETCHED = 2


class PILImages(Dataset[tuple[Tensor, int]]):
    """A data set like `torchvision.datasets.KMNIST`: its items become PIL images and are then transformed."""

    def __init__(
        self, images_NHW: NDArray[np.uint8], labels_N: NDArray[np.int64], transform: Callable[[Image.Image], Tensor]
    ) -> None:
        self.images_NHW, self.labels_N, self.transform = images_NHW, labels_N, transform

    def __len__(self) -> int:
        return len(self.images_NHW)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images_NHW[index])), int(self.labels_N[index])


def dataloader_loop(
    config: TrialConfig, data: SearchData, device: torch.device, *, seconds: float, num_workers: int = 0
) -> Pace:
    """A DataLoader over PIL images with transforms, float32, and the loss read back at each step."""

    def make_step() -> Callable[[], int]:
        transform = transforms.Compose(
            [
                *_affine(config.augment, data.train_images.shape[-1]),
                transforms.ToTensor(),
                transforms.Normalize((data.mean,), (data.std,)),
            ]
        )
        loader = DataLoader(
            PILImages(data.train_images.cpu().numpy(), data.train_labels.cpu().numpy(), transform),
            batch_size=config.batch.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=num_workers,
            pin_memory=device.type == "cuda",
        )
        model, optimizer = _model_and_optimizer(config, device)
        batches, running_loss = _endlessly(loader), 0.0

        def step() -> int:
            nonlocal running_loss
            images_B1HW, labels_B = next(batches)
            images_B1HW, labels_B = images_B1HW.to(device), labels_B.to(device)
            loss = _train_on(model(images_B1HW.squeeze(1)), labels_B, model, optimizer, config)
            running_loss += loss.item()
            return len(labels_B)

        return step

    return time_steps(make_step, device=device, seconds=seconds, warm_up_steps=max(2, PREFETCHED * num_workers))


def eager_loop(config: TrialConfig, data: SearchData, device: torch.device, *, seconds: float) -> Pace:
    """All images on the device, augmented there; on a GPU in bfloat16 by autocast; nothing read back."""
    return time_steps(lambda: _resident_step(config, data, device, net=lambda m: m), device=device, seconds=seconds)


def compiled_loop(config: TrialConfig, data: SearchData, device: torch.device, *, seconds: float) -> Pace:
    """The eager loop with `torch.compile` around the model; compiled without caches, as for a new architecture."""
    import torch._inductor.config as inductor

    torch.compiler.reset()
    with inductor.patch(force_disable_caches=True):
        return time_steps(
            lambda: _resident_step(config, data, device, net=torch.compile), device=device, seconds=seconds
        )


def _resident_step(
    config: TrialConfig, data: SearchData, device: torch.device, *, net: Callable[[PatchMLP], Any]
) -> Callable[[], int]:
    images_NHW, labels_N = data.train_images.to(device), data.train_labels.to(device)
    model, optimizer = _model_and_optimizer(config, device)
    called = net(model)
    generator = torch.Generator(device).manual_seed(0)
    batch_size, batches = config.batch.batch_size, _batches(len(labels_N), config.batch.batch_size, device)
    running_loss = torch.zeros((), device=device)

    def step() -> int:
        nonlocal running_loss
        batch_B = next(batches)
        images_BHW = augment(images_NHW[batch_B].float() / 255, config.augment, generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = called((images_BHW - data.mean) / data.std)
        running_loss += _train_on(logits, labels_N[batch_B], model, optimizer, config).detach()
        return batch_size

    return step


def _model_and_optimizer(config: TrialConfig, device: torch.device) -> tuple[PatchMLP, torch.optim.Optimizer]:
    model = PatchMLP(config.patch_mlp).to(device).train()
    rate, decay = config.optimizer.learning_rate, config.optimizer.weight_decay
    return model, torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)


def _train_on(
    logits_BC: Tensor, labels_B: Tensor, model: PatchMLP, optimizer: torch.optim.Optimizer, config: TrialConfig
) -> Tensor:
    loss = F.cross_entropy(logits_BC.float(), labels_B, label_smoothing=config.batch.label_smoothing)
    optimizer.zero_grad()
    loss.backward()
    if config.optimizer.clip_norm:
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
    optimizer.step()
    return loss


def _affine(config: AugmentConfig, size: int) -> list[Any]:
    """Return torchvision's transform for the parts of an augmentation that it supports, if there are any."""
    if not any((config.shift, config.rotate, config.scale, config.shear)):
        return []
    return [
        transforms.RandomAffine(
            degrees=config.rotate,
            translate=(config.shift / size, config.shift / size),
            scale=(1 - config.scale, 1 + config.scale),
            shear=config.shear or None,
        )
    ]


def _batches(images: int, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    while True:
        order = torch.randperm(images, device=device)
        for start in range(0, images - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def _endlessly(loader: DataLoader[tuple[Tensor, int]]) -> Iterator[Any]:
    while True:
        yield from loader


def time_steps(
    make_step: Callable[[], Callable[[], int]], *, device: torch.device, seconds: float, warm_up_steps: int = 2
) -> Pace:
    """Make a step, run some to warm up, then measure until `seconds` are over, at least one step.

    Args:
        make_step: sets a training up and returns a function that runs a step and returns its number of images.
        device: the device that trains.
        seconds: how long to measure; the last step may end later.
        warm_up_steps: steps that belong to the set-up.
    """
    synchronise(device)
    began = time.perf_counter()
    step = make_step()
    for _ in range(warm_up_steps):
        step()
    synchronise(device)
    started = time.perf_counter()
    images = step()
    while time.perf_counter() - started < seconds:
        images += step()
    synchronise(device)
    return Pace(images_per_second=images / (time.perf_counter() - started), setup_seconds=started - began)


# The comparison.


@dataclass(frozen=True, kw_only=True)
class LoopPace:
    """A loop beside ours. `ratio` is how many times as long an epoch takes; without figures, `missing` says why."""

    name: str
    images_per_second: float | None = None
    setup_seconds: float | None = None
    ratio: float | None = None
    missing: str | None = None


def compare(config: TrialConfig, data: SearchData, device: torch.device, *, seconds: float) -> Iterator[LoopPace]:
    """Measure one training of ours and then each loop, all in this process."""
    training_pace(nets.WARM_UP, data, trials=1, device=device, seconds=0.0)
    ours = training_pace(config, data, trials=1, device=device, seconds=seconds)
    yield _beside("ours", ours, ours)
    for name, loop in _loops(config, data, device, seconds).items():
        try:
            with _quiet_libraries():
                yield _beside(name, loop(), ours)
        except Exception as error:  # a compiler or a library may fail in its own way
            yield LoopPace(name=name, missing=reason_of(error))


def _loops(
    config: TrialConfig, data: SearchData, device: torch.device, seconds: float
) -> dict[str, Callable[[], Pace]]:
    loops = {
        "DataLoader, 0 workers": lambda: dataloader_loop(config, data, device, seconds=seconds),
        "DataLoader, 8 workers": lambda: dataloader_loop(config, data, device, seconds=seconds, num_workers=8),
        "eager loop": lambda: eager_loop(config, data, device, seconds=seconds),
        "torch.compile": lambda: compiled_loop(config, data, device, seconds=seconds),
    }
    if device.type == "cuda":
        loops["plain CUDA graph"] = lambda: training_pace(
            config, data, trials=1, device=device, seconds=seconds, backend="torch"
        )
    return loops


def _beside(name: str, pace: Pace, ours: Pace) -> LoopPace:
    return LoopPace(
        name=name,
        images_per_second=pace.images_per_second,
        setup_seconds=pace.setup_seconds,
        ratio=ours.images_per_second / pace.images_per_second,
    )


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Hide what libraries warn of when they compile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--net", choices=NETS, default="reference")
    parser.add_argument("--seconds", type=float, default=2.5)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    data = nets.noise().to(device)
    found = []
    for each in compare(NETS[chosen.net], data, device, seconds=chosen.seconds):
        found.append(asdict(each))
        if not chosen.json:
            print(line(each), flush=True)
    if chosen.json:
        print(json.dumps({"net": chosen.net, "comparisons": found}, indent=2))


def line(each: LoopPace) -> str:
    if each.ratio is None:
        return f"{each.name:22} {each.missing}"
    pace = f"{each.images_per_second:10.0f} images/s  set-up {each.setup_seconds:6.2f} s"
    return f"{each.name:22} {pace}  {each.ratio:5.1f} x"


if __name__ == "__main__":
    main()
