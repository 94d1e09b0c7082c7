"""Checks of the software, the processor, the GPUs and the terminal."""

import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from kmnist_search.doctor.finding import Finding
from kmnist_search.engine import verdict
from kmnist_search.engine.device import first_line, has_bfloat16
from kmnist_search.host.environment import git_commit, machine, package_version
from kmnist_search.host.resources import available_memory

GIB = 2**30
#: What the driver makes for its GPUs; WSL has the second.
DRIVER_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
COMPILERS = ("cc", "gcc", "clang")


def software() -> Iterator[Finding]:
    """Check Python and the packages that a training depends on."""
    commit = git_commit()
    yield Finding(name="kmnist-search", state="ok", text=package_version() + (f", commit {commit}" if commit else ""))
    yield Finding(name="Python", state="ok", text=f"{platform.python_version()}, {sys.executable}")
    others = ("torchvision", "triton", "optuna", "optuna-dashboard", "sqlalchemy", "psycopg", "numpy")
    found = [f"{name} {version(name)}" for name in others if find_spec(name.replace("-", "_")) is not None]
    yield Finding(name="packages", state="ok", text=", ".join([f"torch {torch.__version__}", *found]))


def processor() -> Iterator[Finding]:
    """Check the processor and the memory that this process may use."""
    yield Finding(name="processor", state="ok", text=machine())
    free = available_memory()
    enough = free > 2 * GIB
    yield Finding(
        name="memory",
        state="ok" if enough else "bad",
        text=f"{free / GIB:.1f} GiB free for this process",
        advice="" if enough else "A worker takes about 1 GiB. End other programs, or ask for more memory.",
    )


def gpus() -> Iterator[Finding]:
    """Check the driver, each GPU, Triton's compiler, and whether kernels and CUDA graphs give the right results."""
    has_driver = any(path.exists() for path in DRIVER_FILES)
    if not torch.cuda.is_available():
        yield _without_gpu(has_driver=has_driver)
        return
    yield Finding(
        name="driver", state="ok", text=f"NVIDIA {verdict.driver_version()}, torch for CUDA {torch.version.cuda}"
    )
    yield _compiler()
    devices = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    try:
        models = {str(verdict.subject(device)): device for device in devices}
        for device in models.values():  # before this process uses a GPU: some take one process at a time
            yield from _self_check(device)
        for device in devices:
            yield _gpu(device)
    except Exception as error:  # torch reports what is broken by errors of several kinds
        text = f"the GPUs cannot be used: {first_line(error)}"
        yield Finding(name="GPU", state="bad", text=text, advice="See what nvidia-smi says of them.")


def terminal(*, encoding: str, columns: int, is_terminal: bool) -> Iterator[Finding]:
    """Check how much the output can show."""
    kind = f"{columns} columns" if is_terminal else "not a terminal: events are printed as lines"
    is_utf8 = encoding.lower().replace("-", "") == "utf8"
    yield Finding(
        name="output",
        state="ok" if is_utf8 else "bad",
        text=f"{kind}, {encoding}",
        advice="" if is_utf8 else "Hiragana cannot be printed. Set PYTHONUTF8=1, or LANG to a UTF-8 locale.",
    )


def _without_gpu(*, has_driver: bool) -> Finding:
    advice = "Trials train on the CPU. For real searches of the study kmnist use a machine with an NVIDIA GPU."
    if torch.version.cuda is None:
        if not has_driver:
            return Finding(name="GPU", state="absent", text="none, and torch is built for the CPU alone", advice=advice)
        return Finding(
            name="GPU",
            state="bad",
            text="this machine has an NVIDIA driver, but torch is built for the CPU alone",
            advice="Install torch with CUDA: pip install --force-reinstall torch torchvision",
        )
    if not has_driver:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        shown = f", CUDA_VISIBLE_DEVICES is {hidden!r}" if hidden is not None else ""
        return Finding(name="GPU", state="absent", text=f"none: there is no NVIDIA driver here{shown}", advice=advice)
    return Finding(
        name="GPU",
        state="bad",
        text=f"the driver {verdict.driver_version()} is here, but torch cannot use it: {_cuda_error()}",
        advice="Update the driver, install torch for its CUDA version, or look at CUDA_VISIBLE_DEVICES "
        f"({os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}).",
    )


def _cuda_error() -> str:
    """Return why torch cannot use CUDA."""
    try:
        torch.cuda.init()
    except Exception as error:  # torch raises errors of several kinds
        return first_line(error)
    return "it sees no GPU"


def _gpu(device: torch.device) -> Finding:
    try:
        free, total = torch.cuda.mem_get_info(device)
    except Exception as error:  # a GPU that is broken, or that another process holds for itself
        text = f"{torch.cuda.get_device_name(device)} cannot be used: {first_line(error)}"
        advice = "Leave it out with --gpus, or see what uses it: nvidia-smi"
        return Finding(name=str(device), state="bad", text=text, advice=advice)
    precision = "bfloat16" if has_bfloat16(device) else "float32: it has no bfloat16"
    is_full = free < total / 2
    return Finding(
        name=str(device),
        state="bad" if is_full else "ok",
        text=f"{torch.cuda.get_device_name(device)}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, {precision}",
        advice="Other programs use it. See which: nvidia-smi" if is_full else "",
    )


def _compiler() -> Finding:
    compiler = os.environ.get("CC") or next((name for name in COMPILERS if shutil.which(name)), None)
    header = Path(sysconfig.get_path("include")) / "Python.h"
    missing = [] if compiler else ["a C compiler"]
    missing += [] if header.exists() else [f"Python's headers ({header})"]
    if missing:
        return Finding(
            name="compiler",
            state="bad",
            text=f"Triton lacks {' and '.join(missing)}",
            advice="Install them, such as with: apt install gcc python3-dev",
        )
    return Finding(name="compiler", state="ok", text=f"{compiler}, with Python's headers")


def _self_check(device: torch.device) -> Iterator[Finding]:
    """Check a GPU anew, whatever is remembered of it."""
    found = verdict.check(device)
    parts = {"Triton kernels": (found.kernels, "plain torch"), "CUDA graphs": (found.graphs, "steps without graphs")}
    for name, (problem, instead) in parts.items():
        yield Finding(
            name=name,
            state="bad" if problem else "ok",
            text=problem or f"give the results of plain torch on {torch.cuda.get_device_name(device)}",
            advice=f"Trials use {instead} until a check passes, which is slower." if problem else "",
        )
