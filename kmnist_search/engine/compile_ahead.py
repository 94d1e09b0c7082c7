"""The compilation of a study's Triton kernels before its trials start, in processes of its own.

Otherwise the first trials of each size would stop all others of the GPU for seconds, since one thread drives them.
"""

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
from platformdirs import user_cache_path

from kmnist_search.config import TrialConfig
from kmnist_search.engine import verdict
from kmnist_search.engine.backends import uses_triton
from kmnist_search.engine.device import first_line
from kmnist_search.engine.memory_estimate import GIB, memory_needed
from kmnist_search.host.files import whole_file
from kmnist_search.host.resources import usable_cores
from kmnist_search.host.signals import StopSignals, blocked
from kmnist_search.wording import count

MAX_PROCESSES = 8
#: Each process also holds a CUDA context (reasoned, not measured), and all together take half of the GPU at most.
CONTEXT_BYTES, SHARE_OF_GPU = GIB // 2, 0.5
#: A line of progress comes as often as this share of the nets is done.
REPORTED_SHARE = 0.25

SPAWN = multiprocessing.get_context("spawn")


def compiled_ahead(
    configs: Sequence[TrialConfig], device: torch.device, *, is_stopped: Callable[[], bool]
) -> Iterator[str]:
    """Compile the Triton kernels of nets on a GPU, and yield what a user should know of it.

    It happens once for a model of GPU, its versions and these nets. Whatever fails here is left to the first trial that
    needs it.

    Args:
        configs: of the nets; those without Triton kernels are left out.
        device: the GPU.
        is_stopped: returns True to end this early.
    """
    configs = [config for config in configs if uses_triton(config, device, "auto")]
    mark = _folder() / _name(configs, device)
    if not configs or mark.exists():
        return
    number = _number_of_processes(configs, device)
    gpu = torch.cuda.get_device_name(device)
    processes = count(number, "process", "processes")
    yield f"compiling the kernels that this study needs on {gpu}, once, in {processes} ..."
    begun, told = time.monotonic(), 0.0
    done, failure = [0] * number, ""
    with _processes(configs, device, number) as pipes:
        while open_pipes := [pipe for pipe in pipes if not pipe.closed]:
            if is_stopped():
                return
            for pipe in wait(open_pipes, timeout=0.2):
                assert isinstance(pipe, Connection)
                try:
                    message = pipe.recv()
                except (EOFError, OSError):
                    pipe.close()
                    continue
                if isinstance(message, str):
                    failure = message
                else:
                    done[pipes.index(pipe)] = message
            share = min(done) / len(configs)
            if told + REPORTED_SHARE <= share < 1:
                told = share
                yield f"kernels compiled: {share:.0%}"
    if min(done) < len(configs):
        because = f" ({failure})" if failure else ""
        yield f"not all kernels were compiled{because}: a trial that needs another is delayed by some seconds"
        return
    _leave(mark, configs)
    yield f"the kernels are compiled, in {time.monotonic() - begun:.0f} s"


def _number_of_processes(configs: Sequence[TrialConfig], device: torch.device) -> int:
    needed = CONTEXT_BYTES + max(
        memory_needed(config, train_images=config.batch.batch_size, val_images=1, activation_bytes=4, on_gpu=True)
        for config in configs
    )
    memory = SHARE_OF_GPU * torch.cuda.get_device_properties(device).total_memory
    return max(1, min(usable_cores(), MAX_PROCESSES, int(memory // needed)))


@contextmanager
def _processes(
    configs: Sequence[TrialConfig], device: torch.device, number: int
) -> Iterator[list["Connection[int | str, int | str]"]]:
    """Start processes that share the work; yield the pipe from each, and kill those that still run at the end."""
    texts = [config.model_dump_json() for config in configs]
    pipes, processes = [], []
    try:
        for share in range(number):
            ours, theirs = SPAWN.Pipe(duplex=False)
            process = SPAWN.Process(target=compile_share, args=(theirs, texts, str(device), share, number), daemon=True)
            with blocked(*StopSignals.SIGNALS):  # in the process, too, and in the compilers that it calls
                process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        yield pipes
    finally:
        for process in processes:
            process.kill()
            process.join()
        for pipe in pipes:
            pipe.close()


def compile_share(
    pipe: "Connection[int | str, int | str]", configs: Sequence[str], device: str, share: int, shares: int
) -> None:
    """Compile a share of the kernels of nets in this process; send the number of nets that are done, or what failed."""
    from kmnist_search.engine.kernel_compiler import KernelCompiler  # needs Triton

    torch.set_num_threads(1)
    compiler = KernelCompiler(share, shares)
    with suppress(BrokenPipeError):  # the parent was killed
        try:
            torch.cuda.set_device(device)
            for number, text in enumerate(configs, start=1):
                compiler.compile_for(TrialConfig.model_validate_json(text), torch.device(device))
                pipe.send(number)
        except BrokenPipeError:
            raise
        except Exception as error:  # whatever a compiler or a driver raises
            pipe.send(first_line(error))


def _leave(mark: Path, configs: Sequence[TrialConfig]) -> None:
    """Note that the kernels of these nets are compiled; where nothing can be written, the next run looks again."""
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(mark) as new:
            new.write_text(f"{len(configs)} nets\n")
    except OSError:
        return


def _folder() -> Path:
    return user_cache_path("kmnist-search") / "compiled-kernels"


def _name(configs: Sequence[TrialConfig], device: torch.device) -> str:
    """Return the name of the file that notes what is compiled: for these nets, GPU, versions and cache folder."""
    about = {
        **verdict.subject(device),
        "cache": os.environ.get("TRITON_CACHE_DIR"),
        "nets": [config.model_dump(mode="json") for config in configs],
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
