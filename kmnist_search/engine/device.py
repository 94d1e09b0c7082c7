"""The device that trains: found by its name, and named for people."""

import torch
from torch import Tensor

from kmnist_search.errors import ConfigError, DeviceLostError

#: Messages of torch's CPU allocator, of CUDA outside torch's allocator (as for a graph), and of cuBLAS.
OUT_OF_MEMORY_WORDS = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")

#: Messages of CUDA about errors that any later call may report, also one that captures a graph.
BROKEN_WORDS = (
    "ECC error",
    "illegal memory access",
    "illegal instruction",
    "launch failure",
    "misaligned address",
    "device-side assert",
    "hardware stack error",
    "invalid program counter",
)


def device_named(name: str) -> torch.device:
    """Return the device called "auto", "cpu", "cuda" or "cuda:N"; "auto" is a GPU if there is one.

    Raises:
        ConfigError: there is no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device {name}: use auto, cpu, cuda or cuda:N")
    present = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= present:
        raise ConfigError(f"--device {name}: this machine has {present} usable GPUs. Use --device cpu or auto")
    return device if device.type == "cpu" else torch.device("cuda", device.index or 0)


def device_title(device: torch.device) -> str:
    """Return the name of a device in reports."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, threads: {torch.get_num_threads()}"


def device_place(device: torch.device) -> str:
    """Return the name of a device among those of a machine: for a GPU its name and number."""
    return f"{torch.cuda.get_device_name(device)} ({device})" if device.type == "cuda" else "CPU"


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a GPU or CPU multiplies bfloat16 itself; an emulation would be slower than float32."""
    if device.type != "cuda":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def copy_from_host(values: Tensor, to: Tensor) -> None:
    """Copy `values`, a tensor on the host, into `to` without waiting for the GPU."""
    to.copy_(values.pin_memory() if to.is_cuda else values, non_blocking=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, on the CPU or the GPU."""
    said = any(words in str(error) for words in OUT_OF_MEMORY_WORDS)
    return said or isinstance(error, torch.OutOfMemoryError | MemoryError)


def is_lost(error: BaseException) -> bool:
    """Return whether an error means that this process can no longer use its GPU, as after an illegal access.

    CUDA repeats such an error at every call. Running out of memory is not one of them.
    """
    if is_out_of_memory(error):
        return False
    if isinstance(error, DeviceLostError | torch.AcceleratorError):
        return True
    # cuBLAS and Triton raise a plain RuntimeError.
    return type(error) is RuntimeError and str(error).startswith(("CUDA error:", "Triton Error [CUDA]:"))


def is_broken(error: BaseException) -> bool:
    """Return whether an error comes from earlier work or the hardware, whatever call it has met."""
    return any(words in str(error) for words in BROKEN_WORDS)


def first_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
