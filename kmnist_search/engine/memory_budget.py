"""The memory of a device, and the trainings that hold some of it. Knows nothing of how they train."""

import gc
from typing import Protocol

import torch

from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.memory_estimate import GIB, memory_needed
from kmnist_search.engine.torch_program import uses_bfloat16
from kmnist_search.host.resources import available_memory


class MemoryBudget:
    """What the trainings of one process hold of a device's memory, by estimate.

    Whoever wants to hold some asks first: not more than `most`, and not before `has` says that it is there.
    """

    def __init__(self, device: torch.device) -> None:
        self._memory: DeviceMemory = GpuMemory(device) if device.type == "cuda" else MachineMemory()
        self._device = device
        self._reserved: dict[int, int] = {}

    def estimate(self, config: TrialConfig, data: SearchData) -> int:
        """Return about how many bytes a training takes."""
        return memory_needed(
            config,
            train_images=len(data.train_images),
            val_images=len(data.val_images),
            activation_bytes=2 if uses_bfloat16(config, self._device) else 4,
            on_gpu=self._device.type == "cuda",
        )

    def capacity(self) -> int:
        """Return how many bytes a training could hold that is alone."""
        return self._memory.capacity(self._reserved_bytes)

    def excess_text(self, needed: int) -> str:
        """Return what is to be said of a training that needs more than `most`."""
        return f"needs about {_gib(needed)}, {self._memory.owner} {_gib(self.capacity())}"

    def fits(self, needed: int) -> bool:
        """Return whether so many bytes can be reserved now: always when nothing else is, so nobody waits for nobody."""
        return not self._reserved or needed <= self._memory.usable(self._reserved_bytes) - self._reserved_bytes

    def reserve(self, holder: int, needed: int) -> None:
        self._reserved[holder] = needed

    def release(self, holder: int) -> None:
        """Take back what a training reserved; one that reserved nothing may be named, too."""
        self._reserved.pop(holder, None)

    def is_shared(self) -> bool:
        """Return whether more than one training holds some."""
        return len(self._reserved) > 1

    def clean_up(self, *, after_error: bool) -> None:
        """Free what ended trainings left; the frames of an error keep its tensors until they are collected."""
        if after_error:
            gc.collect()
        self._memory.clean_up()

    @property
    def _reserved_bytes(self) -> int:
        return sum(self._reserved.values())


class DeviceMemory(Protocol):
    """The memory of a device, in bytes, of which this process's trainings hold `reserved` by estimate.

    Attributes:
        owner: whose it is, as the beginning of "... 139 GiB".
    """

    owner: str

    def capacity(self, reserved: int) -> int:
        """Return what one training alone could have."""

    def usable(self, reserved: int) -> int:
        """Return what all trainings of this process together could have now."""

    def clean_up(self) -> None:
        """Give back what is not used."""


class GpuMemory:
    """Other processes may use some of a GPU: that is not to be had now, and may be another time."""

    owner = "the GPU has"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def capacity(self, reserved: int) -> int:
        return int(torch.cuda.mem_get_info(self.device)[1])

    def usable(self, reserved: int) -> int:
        return int(torch.cuda.mem_get_info(self.device)[0]) + torch.cuda.memory_reserved(self.device)

    def clean_up(self) -> None:
        # What a stream's tensors or a graph's pool were in, no other stream or graph can use.
        torch.cuda.empty_cache()


class MachineMemory:
    """Of a machine's memory counts what was free when nothing of it was reserved here."""

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
