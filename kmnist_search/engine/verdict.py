"""The verdict on a GPU: whether Triton kernels and CUDA graphs may be used on it, by a self-check that is remembered.

A part that fails, or whose results differ from those of plain torch, is not used: trials then train in plain torch,
without graphs if these are at fault.
"""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from platformdirs import user_cache_path

from kmnist_search.host.files import whole_file

#: "graphs" are CUDA graphs of plain torch; "kernels" are the Triton kernels, launched one by one and in CUDA graphs.
Part = Literal["graphs", "kernels"]

#: The program that checks one part of one device.
COMMAND = (sys.executable, "-m", "kmnist_search.engine.self_check")
#: It exits so if others fill the GPU just now or hold it for themselves, which says nothing about its parts.
NOT_NOW = 3
#: It compiles some dozens of kernels; one that takes longer hangs (reasoned, not measured).
TIMEOUT_SECONDS = 600.0
#: If it was stopped, that says nothing, either.
STOPPED = {-signal.SIGINT, -signal.SIGTERM, -signal.SIGKILL}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Why parts of a GPU's fast path are not used; empty for those that are.

    Attributes:
        kernels: of the Triton kernels.
        graphs: of CUDA graphs.
        kernels_gain: how many times as long an epoch takes without the Triton kernels; 0 if they do not run.
        graphs_gain: the same of CUDA graphs.
        seconds: that the self-check took.
    """

    kernels: str
    graphs: str
    kernels_gain: float = 0.0
    graphs_gain: float = 0.0
    seconds: float = 0.0


#: What this process knows, by the name of the file in which it is remembered.
_known: dict[str, Verdict] = {}


def verdict(device: torch.device) -> Verdict:
    """Return the verdict on a GPU; without one that is remembered, check it first, in up to a minute.

    Processes that ask at the same time share one self-check.
    """
    name = _name(device)
    if name not in _known:
        with _lock(name):
            _known[name] = _remembered(name) or check(device)
    return _known[name]


def is_remembered(device: torch.device) -> bool:
    """Return whether the verdict on a GPU is known without a self-check."""
    name = _name(device)
    return name in _known or _remembered(name) is not None


def check(device: torch.device) -> Verdict:
    """Check a GPU in processes of their own, remember the verdict, and return it.

    One part after the other, because some GPUs take one process at a time. A check that was stopped, or could not use
    the GPU just now, is not remembered: until the next one its parts are not used.
    """
    begun = time.monotonic()
    graphs = _checked("graphs", device)
    kernels = _Finding(problem="Triton is not installed")
    if find_spec("triton") is not None:
        kernels = _checked("kernels", device)
    found = Verdict(
        kernels=kernels.problem,
        graphs=graphs.problem,
        kernels_gain=kernels.gain,
        graphs_gain=graphs.gain,
        seconds=round(time.monotonic() - begun, 1),
    )
    _known[_name(device)] = found
    if graphs.is_certain and kernels.is_certain:
        _remember(device, found)
    return found


def known() -> dict[str, Verdict]:
    """Return what this process knows, for `learn` in a process that it starts."""
    return dict(_known)


def learn(verdicts: Mapping[str, Verdict]) -> None:
    """Take over what another process knows, unless a later verdict is remembered."""
    for name, found in verdicts.items():
        _known[name] = _remembered(name) or found


def told(device: torch.device) -> Iterator[str]:
    """Yield what a user should know of the verdict before a training: each part that is not used, and a new check."""
    if device.type != "cuda":
        return
    gpu, is_new = torch.cuda.get_device_name(device), not is_remembered(device)
    if is_new:
        yield f"self-check of {gpu}, once for this GPU and these versions, in up to a minute ..."
    found = verdict(device)
    if is_new and not found.kernels and not found.graphs:
        took = f"passed in {found.seconds:.0f} s"
        yield f"self-check of {gpu} {took}: the Triton kernels and CUDA graphs give the results of plain torch"
    if found.kernels:
        needs = "" if "compiler" not in found.kernels.lower() else ". Triton needs gcc and python3-dev, or the like"
        price = _price(found.kernels_gain)
        yield f"the Triton kernels are not used ({found.kernels}): trials train in plain torch, {price}{needs}"
    if found.graphs:
        price = _price(found.graphs_gain)
        yield f"CUDA graphs are not used ({found.graphs}): every operation is launched by itself, {price}"
    if found.kernels or found.graphs:
        yield "to check the GPU again: kmnist-search doctor"


def _price(gain: float) -> str:
    """Return what it costs to do without a part; its gain is unknown if it did not run."""
    return f"which takes {gain:.1f} times as long here" if gain > 1 else "which is slower"


def give_up_graphs(device: torch.device, reason: str) -> None:
    """Remember that CUDA graphs failed on a GPU after all, so that the next process does without them."""
    name = _name(device)
    before = _known.get(name) or _remembered(name)
    if before is not None:  # else this is the first self-check, which comes to a verdict of its own
        _known[name] = replace(before, graphs=reason)
        _remember(device, _known[name])


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """What is wrong with a part, empty if nothing is; what it gains, 0 if unknown; and whether that is certain."""

    problem: str
    gain: float = 0.0
    is_certain: bool = True


def _checked(part: Part, device: torch.device) -> _Finding:
    """Check a part in a process."""
    try:
        done = subprocess.run([*COMMAND, part, str(device)], capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return _Finding(problem=f"the self-check was not over after {TIMEOUT_SECONDS:.0f} s")
    if done.returncode == 0:
        return _Finding(**json.loads(done.stdout.splitlines()[-1]))
    if done.returncode == NOT_NOW:
        return _Finding(problem="not checked: others fill the GPU, or hold it for themselves", is_certain=False)
    if done.returncode in STOPPED:
        return _Finding(problem="not checked: the self-check was stopped", is_certain=False)
    last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
    return _Finding(problem=f"the self-check ended with exit code {done.returncode}: {last[0]}")


def _remember(device: torch.device, found: Verdict) -> None:
    """Write a verdict into the cache folder, with what it is about; where nothing can be written it is made again."""
    path = _folder() / _name(device)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as new:
            new.write_text(json.dumps({**subject(device), **asdict(found)}, indent=2) + "\n")
    except OSError:
        return


def _remembered(name: str) -> Verdict | None:
    try:
        stored: dict[str, Any] = json.loads((_folder() / name).read_text())
        return Verdict(**{field.name: stored[field.name] for field in fields(Verdict)})
    except (OSError, ValueError, KeyError):
        return None  # not there, or damaged


def _lock(name: str) -> AbstractContextManager[Any]:
    try:
        _folder().mkdir(parents=True, exist_ok=True)
        return FileLock(_folder() / f".{name}.lock").acquire()
    except (OSError, NotImplementedError):  # it cannot be written, or has no locks: every process checks for itself
        return nullcontext()


def _folder() -> Path:
    return user_cache_path("kmnist-search") / "self-check"


def _name(device: torch.device) -> str:
    """Return the name of the file that remembers the verdict: another one as soon as any part of the subject is new."""
    digest = hashlib.sha256(json.dumps(subject(device)).encode()).hexdigest()
    return f"{digest[:16]}.json"


def subject(device: torch.device) -> dict[str, str]:
    """Return what a verdict is about: a model of GPU, the driver, torch, Triton, and the code that trains."""
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "driver": driver_version(),
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "triton": version("triton") if find_spec("triton") is not None else "none",
        "engine": _engine_digest(),
    }


def driver_version() -> str:
    """Return the version of NVIDIA's kernel driver, "unknown" where the system does not tell, as in WSL."""
    path = Path("/proc/driver/nvidia/version")
    found = re.search(r"(\d+\.\d+[\d.]*)", path.read_text()) if path.exists() else None
    return found[1] if found else "unknown"


@cache
def _engine_digest() -> str:
    """Return a digest of the source of this package's engine."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
