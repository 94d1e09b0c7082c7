"""Training loops as most people write them, to compare ours with: the same net, recipe and images.

Each takes a configuration, the images, a device and how long to measure, and returns its pace. They draw the same kind
of augmentation, as far as torchvision has it, clip as the configuration says, and keep the learning rate constant. They
come with the package for `kmnist-search bench`, which loads this file by its path.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from kmnist_search.bench.stopwatch import Throughput, time_steps
from kmnist_search.config import AugmentConfig, TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.augment import augment
from kmnist_search.model.patch_mlp import PatchMLP

#: Batches that a DataLoader's worker fetches ahead; drawn before the clock starts, since they would count as fast.
PREFETCHED = 2


class PILImages(Dataset[tuple[Tensor, int]]):
    """What `torchvision.datasets.KMNIST` is: arrays whose items become PIL images, then are transformed."""

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
) -> Throughput:
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
            # The default elsewhere than on Linux must import this file by a name, and it is loaded by its path.
            multiprocessing_context="fork" if num_workers else None,
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


def eager_loop(config: TrialConfig, data: SearchData, device: torch.device, *, seconds: float) -> Throughput:
    """All images on the device, augmented there; on a GPU in bfloat16 by autocast; nothing read back."""
    return time_steps(lambda: _resident_step(config, data, device, net=lambda m: m), device=device, seconds=seconds)


def compiled_loop(config: TrialConfig, data: SearchData, device: torch.device, *, seconds: float) -> Throughput:
    """The eager loop with `torch.compile` around the model; compiled anew, as it must be for a new architecture."""
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
    """Return torchvision's transform for what it has of an augmentation, if there is any."""
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
