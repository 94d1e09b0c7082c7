"""The device that trains: found by its name, and named for people."""

import torch

from kmnist_search.errors import ConfigError


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
