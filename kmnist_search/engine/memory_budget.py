"""The memory budget of a process on a device: trainings reserve their estimated memory before they start."""

import gc
from typing import Protocol

import torch

from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.backends import uses_triton
from kmnist_search.engine.memory_estimate import GIB, memory_needed
from kmnist_search.engine.torch_program import uses_bfloat16
from kmnist_search.host.resources import available_memory


class MemoryBudget:
    """The memory of a device that the trainings of one process have reserved, by estimate.

    Before a reservation, check that the training needs at most `capacity`, and wait until it `fits`.
    """

    def __init__(self, device: torch.device) -> None:
        self._memory: DeviceMemory = GpuMemory(device) if device.type == "cuda" else MachineMemory()
        self._device = device
        self._reserved: dict[int, int] = {}

    def estimate(self, config: TrialConfig, data: SearchData) -> int:
        """Return about how many bytes a training needs."""
        has_bfloat16 = uses_bfloat16(config, self._device)
        return memory_needed(
            config,
            train_images=len(data.train_images),
            val_images=len(data.val_images),
            activation_bytes=2 if has_bfloat16 else 4,
            on_gpu=self._device.type == "cuda",
            uses_autocast=has_bfloat16 and not uses_triton(config, self._device, "auto"),
        )

    def capacity(self) -> int:
        """Return how many bytes a training could use if it ran alone."""
        return self._memory.capacity(self._reserved_bytes)

    def excess_text(self, needed: int) -> str:
        """Return the message about a training that needs more than `capacity`."""
        return f"needs about {_gib(needed)}, {self._memory.owner} {_gib(self.capacity())}"

    def fits(self, needed: int) -> bool:
        """Return whether so many bytes are free; always True if nothing is reserved, so a lone training never waits."""
        return not self._reserved or needed <= self._memory.usable(self._reserved_bytes) - self._reserved_bytes

    def reserve(self, holder: int, needed: int) -> None:
        self._reserved[holder] = needed

    def release(self, holder: int) -> None:
        """Release what a training reserved, if anything."""
        self._reserved.pop(holder, None)

    def is_shared(self) -> bool:
        """Return whether more than one training has reserved memory."""
        return len(self._reserved) > 1

    def clean_up(self, *, after_error: bool) -> None:
        """Free the memory of ended trainings. After an error, its frames hold tensors until they are collected."""
        if after_error:
            gc.collect()
        self._memory.clean_up()

    @property
    def _reserved_bytes(self) -> int:
        return sum(self._reserved.values())


class DeviceMemory(Protocol):
    """The memory of a device, in bytes, of which this process's trainings have reserved `reserved`.

    Attributes:
        owner: the beginning of the message "... 139 GiB".
    """

    owner: str

    def capacity(self, reserved: int) -> int:
        """Return what one training alone could use."""

    def usable(self, reserved: int) -> int:
        """Return what all trainings of this process together could use now."""

    def clean_up(self) -> None:
        """Return unused memory to the device."""


class GpuMemory:
    """A GPU's memory: what other processes use is not available now, but may be later."""

    owner = "the GPU has"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def capacity(self, reserved: int) -> int:
        return int(torch.cuda.mem_get_info(self.device)[1])

    def usable(self, reserved: int) -> int:
        return int(torch.cuda.mem_get_info(self.device)[0]) + torch.cuda.memory_reserved(self.device)

    def clean_up(self) -> None:
        # Cached blocks of one stream or graph cannot be used by another.
        torch.cuda.empty_cache()


class MachineMemory:
    """The machine's memory: what was free when this process had reserved nothing."""

    owner = "this machine has free"

    def __init__(self) -> None:
        self._free = 0

    def capacity(self, reserved: int) -> int:
        if not reserved:
            self._free = available_memory()
        return self._free

    def usable(self, reserved: int) -> int:
        return self.capacity(reserved)

    def clean_up(self) -> None:
        return


def _gib(size: int) -> str:
    return f"{size / GIB:,.{0 if size >= 10 * GIB else 1}f} GiB"
