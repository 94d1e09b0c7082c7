"""A stand-in GPU: streams, events and CUDA graphs that record on the CPU what is captured, and replay it.

Within `StandInGpu()` torch reports GPUs, and tensors made on "cuda" are `GpuTensor`s whose values lie in main memory.
Every operation on them passes through a dispatch mode, which fails where a GPU would fail and a CPU would not:

- tensors of two devices in one operation, and numpy on a tensor of the GPU;
- during a capture: reading a value back, shapes that depend on data, a generator that is not registered, the default
  generator, copies from or to the host's memory, waiting, a capture on the default stream;
- a replay that reads memory which has been freed since, and a pool that is used again after its last graph;
- an empty tensor that is larger than the GPU;
- after a sticky error: everything.

As on a GPU, captured operations do not run: what they wrote is undone when the capture ends, what they allocated is
filled with NaN, and generators move on only when the graph is replayed. Triton kernels run in Triton's interpreter.
The GPU has passed its self-check, which `verdict._known.clear()` forgets.
Not modelled: the order of work in different streams (each operation runs at once), memory that graphs of one pool
share, and speed.
"""

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace, TracebackType
from typing import Any, ClassVar, Self
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from kmnist_search.engine import verdict

GIB = 2**30
HOST = torch.device("cpu")
aten = torch.ops.aten

#: What a capture refuses because the host has to wait for a value, or because a shape depends on one.
READS_BACK = {
    aten._local_scalar_dense.default: "a value is read back",
    aten.equal.default: "a value is read back",
    aten.is_nonzero.default: "a value is read back",
    aten.nonzero.default: "a shape depends on data",
    aten.masked_select.default: "a shape depends on data",
    aten._unique2.default: "a shape depends on data",
    aten.unique_dim.default: "a shape depends on data",
    aten.repeat_interleave.Tensor: "a shape depends on data",
    aten.bincount.default: "a shape depends on data",
}


class NotCapturableError(RuntimeError):
    """Torch's "operation not permitted when stream is capturing"."""


class GpuTensor(Tensor):
    """A tensor that says it is on a GPU. It shares its memory with `on_host`, an ordinary tensor."""

    on_host: Tensor
    gpu: int

    @staticmethod
    def __new__(cls, on_host: Tensor, gpu: int) -> "GpuTensor":
        tensor: GpuTensor = torch.Tensor._make_subclass(cls, on_host, on_host.requires_grad)
        tensor.on_host, tensor.gpu = on_host, gpu
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return StandInGpu.current().run(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", self.gpu)

    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def cpu(self, *_: Any, **__: Any) -> Tensor:
        return StandInGpu.current().read_back(self, "a copy to the host")

    def cuda(self, *_: Any, **__: Any) -> Tensor:
        return self

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        copies = kwargs.pop("copy", False)
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None and device.type == "cpu":
            host = self.cpu()
            return host if dtype is None else host.to(dtype)
        if device is not None and (device.index or 0) != self.gpu:
            return GpuTensor(self.on_host.to(dtype or self.dtype, copy=True), device.index or 0)
        if dtype is None or dtype == self.dtype:
            return self.clone() if copies else self
        return super().to(dtype)

    def tolist(self) -> Any:
        return StandInGpu.current().read_back(self, "tolist").tolist()

    def item(self) -> Any:
        return StandInGpu.current().read_back(self, "item").item()

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *_: Any) -> Any:
        return self.numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy: Tensor = GpuTensor(self.on_host.detach().clone(), self.gpu).requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            copy._is_param = True
        memo[id(self)] = copy
        return copy

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.cpu().__reduce_ex__(protocol)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"GpuTensor({self.on_host!r}, device={self.device})"


class GpuGenerator(torch.Generator):
    """A random generator of a GPU. It draws other numbers than a GPU's generator would."""

    def __new__(cls, device: Any = "cpu") -> Any:
        if torch.device(device).type == "cpu":
            return torch._C.Generator("cpu")
        return super().__new__(cls, "cpu")  # type: ignore[call-arg]

    def __init__(self, device: Any = "cpu") -> None:
        self.gpu = torch.device(device).index or 0

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", self.gpu)


class Stream:
    """A stream, whose work is done at once."""

    def __init__(self, device: Any = None, **_: Any) -> None:
        index = torch.device(device).index if device is not None else None
        self.device = torch.device("cuda", StandInGpu.current().device if index is None else index)

    def synchronize(self) -> None:
        StandInGpu.current().wait("a stream")

    def wait_stream(self, other: "Stream") -> None:
        StandInGpu.current().check_alive()

    def wait_event(self, event: "Event") -> None:
        StandInGpu.current().check_alive()

    def query(self) -> bool:
        StandInGpu.current().check_alive()
        return True

    def is_capturing(self) -> bool:
        return StandInGpu.current().capturing is not None


class Event:
    """An event, which is done when it has been asked for the second time, so that callers have to come again."""

    def __init__(self, **_: Any) -> None:
        self._asked = 0

    def record(self, stream: Stream | None = None) -> None:
        self._asked = 0

    def query(self) -> bool:
        StandInGpu.current().refuse_in_capture("an event is asked for")
        self._asked += 1
        return self._asked > 1

    def synchronize(self) -> None:
        StandInGpu.current().wait("an event")

    def elapsed_time(self, other: "Event") -> float:
        return 1.0  # ms


@dataclass(eq=False)
class Recorded:
    """One recorded operation: `replay` runs it again, in the same memory."""

    replay: Callable[[], None]
    tensors: list[Tensor]


@dataclass(eq=False)
class Pool:
    """A pool of graph memory. Torch drops it with its last graph; its handle is of no use after that."""

    graphs: "weakref.WeakSet[Graph]" = field(default_factory=weakref.WeakSet)
    was_used: bool = False


class Graph:
    """A CUDA graph: what is recorded between `capture_begin` and `capture_end` runs at each `replay`."""

    def __init__(self, **_: Any) -> None:
        self.generators: list[torch.Generator] = []
        self._operations: list[Recorded] = []
        self._allocated: dict[int, Tensor] = {}
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._states: list[Tensor] = []
        self._external: dict[int, Tensor] = {}
        self._is_complete = False
        self._failed = False

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    def capture_begin(self, pool: Pool | None = None, capture_error_mode: str = "global") -> None:
        gpu = StandInGpu.current()
        gpu.check_alive()
        if gpu.capturing is not None or gpu.has_lost_a_capture:
            raise RuntimeError("INTERNAL ASSERT FAILED: a capture is under way already")
        if gpu.stream is gpu.default_stream:
            raise RuntimeError("CUDA graphs must be captured on a non-default stream")
        if pool is not None:
            if pool.was_used and not pool.graphs:
                raise RuntimeError("INTERNAL ASSERT FAILED: the pool was dropped with its last graph")
            pool.was_used = True
            pool.graphs.add(self)
        self._states = [generator.get_state() for generator in self.generators]
        gpu.capturing = self
        gpu.captures += 1

    def capture_end(self) -> None:
        gpu = StandInGpu.current()
        assert gpu.capturing is self
        gpu.capturing = None
        for tensor, bytes_before in self._before.values():
            _bytes(tensor).copy_(bytes_before)
        for generator, state in zip(self.generators, self._states, strict=True):
            generator.set_state(state)
        self._spoil()
        self._before.clear()
        if gpu.fails_at_capture_end:
            gpu.fails_at_capture_end, gpu.has_lost_a_capture = False, True
            raise torch.AcceleratorError("CUDA error: the capture could not be ended (stand-in)")
        if self._failed:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        own = {_memory(tensor) for tensor in self._allocated.values()}
        for operation in self._operations:
            for tensor in operation.tensors:
                if _memory(tensor) not in own:
                    self._external.setdefault(id(tensor), tensor)
        self._is_complete = True

    def replay(self) -> None:
        gpu = StandInGpu.current()
        gpu.check_alive()
        gpu.replays += 1
        if not self._is_complete:
            raise RuntimeError("Called CUDAGraph.replay without a preceding successful capture")
        self._check_memory()
        with _disable_current_modes(), torch.no_grad():
            for operation in self._operations:
                operation.replay()

    def reset(self) -> None:
        self._operations.clear()
        self._is_complete = False

    def fail(self) -> None:
        """Note that an operation was refused: the capture cannot be completed."""
        self._failed = True

    def before_write(self, tensor: Tensor) -> None:
        """Keep the bytes of memory that the capture must not change."""
        memory = _memory(tensor)
        if memory and memory not in self._before and memory not in self._allocated:
            self._before[memory] = (tensor, _bytes(tensor).clone())

    def allocated(self, tensor: Tensor) -> None:
        self._allocated[_memory(tensor)] = tensor

    def add(self, operation: Recorded) -> None:
        self._operations.append(operation)

    def _spoil(self) -> None:
        """Fill what the capture allocated with what nobody should read."""
        for tensor in self._allocated.values():
            whole = _bytes(tensor)
            if tensor.dtype.is_floating_point:
                whole.view(tensor.dtype).fill_(float("nan"))
            elif tensor.dtype != torch.bool:
                whole.view(tensor.dtype).fill_(torch.iinfo(tensor.dtype).max)

    def _check_memory(self) -> None:
        """Check that what the graph reads or writes of others still belongs to somebody.

        Each recorded tensor is an alias that this graph keeps; a `GpuTensor` on the same memory is one more.
        """
        aliases: dict[int, int] = {}
        for tensor in self._external.values():
            memory = _memory(tensor)
            aliases[memory] = aliases.get(memory, 0) + 1
        for tensor in self._external.values():
            uses = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)  # the call itself is one
            if uses - 1 <= aliases[_memory(tensor)]:
                raise RuntimeError(f"a captured graph uses memory that has been freed: {tuple(tensor.shape)}")


class StandInGpu(TorchDispatchMode):
    """While entered, torch has GPUs that run on the CPU.

    Attributes:
        waits: what made the host wait for the GPU since the list was last cleared.
        captures, replays: how many graphs have been captured and replayed.
        bfloat16: whether the GPU computes in bfloat16; emulation counts only where it is asked for.
        old: numbers of GPUs of another, older model without bfloat16.
        fails_at_capture_end: the next capture fails at its end.
        lost: the sticky error that everything fails with, if there is one.
    """

    _current: ClassVar["StandInGpu | None"] = None

    def __init__(self, *, gpus: int = 1, memory: int = 80 * GIB, bfloat16: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.gpus, self.memory, self.bfloat16 = gpus, memory, bfloat16
        self.device = 0
        self.old: set[int] = set()
        self.capturing: Graph | None = None
        self.captures = self.replays = 0
        self.has_lost_a_capture = self.fails_at_capture_end = False
        self.lost: BaseException | None = None
        self.waits: list[str] = []
        self._next_errors: list[tuple[int, BaseException]] = []
        self._patches = ExitStack()

    @classmethod
    def is_infra_mode(cls) -> bool:
        return True

    @classmethod
    def current(cls) -> "StandInGpu":
        assert cls._current is not None, "a tensor of the stand-in GPU is used outside of the stand-in"
        return cls._current

    def __enter__(self) -> Self:
        StandInGpu._current = self
        self.default_stream = self.stream = Stream(torch.device("cuda", 0))
        for target, name, value in self._replacements():
            self._patches.enter_context(mock.patch.object(target, name, value))
        cache_folder = Path(self._patches.enter_context(TemporaryDirectory()))
        self._patches.enter_context(mock.patch.object(verdict, "_folder", return_value=cache_folder))
        passed = {verdict._name(torch.device("cuda", 0)): verdict.Verdict(kernels="", graphs="")}
        self._patches.enter_context(mock.patch.object(verdict, "_known", passed))
        was_swapped = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)  # else a Parameter keeps its type on the way here
        self._patches.callback(torch.__future__.set_swap_module_params_on_conversion, was_swapped)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
        self._patches.close()
        StandInGpu._current = None

    def fail_after(self, operations: int, error: BaseException, *, sticky: bool = False) -> None:
        """Let the operation after so many others raise an error; if it is sticky, everything after it, too."""
        self._countdown, self._error, self._is_sticky = operations, error, sticky

    _countdown: int | None = None
    _error: BaseException
    _is_sticky = False

    def check_alive(self) -> None:
        if self.lost is not None:
            raise self.lost

    def refuse_in_capture(self, reason: str) -> None:
        self.check_alive()
        if self.capturing is not None:
            self.capturing.fail()
            raise NotCapturableError(f"CUDA error: operation not permitted when stream is capturing: {reason}")

    def wait(self, reason: str) -> None:
        self.refuse_in_capture(f"the host waits for {reason}")
        self.waits.append(reason)

    def read_back(self, tensor: GpuTensor, reason: str) -> Tensor:
        """Return a copy on the host, which waits for the GPU."""
        self.wait(reason)
        with _disable_current_modes():
            return tensor.on_host.detach().clone()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation; if a tensor of a GPU takes part, with all checks, and record it during a capture."""
        leaves = tree_leaves((args, kwargs))
        on_gpu = [leaf for leaf in leaves if isinstance(leaf, GpuTensor)]
        asked = kwargs.get("device")
        if asked is None:
            asked = next((leaf for leaf in args if isinstance(leaf, torch.device)), None)
        if not on_gpu and (asked is None or torch.device(asked).type != "cuda"):
            return func(*args, **kwargs)
        self._count()
        gpu = on_gpu[0].gpu if on_gpu else torch.device(asked or "cuda").index
        gpu = self.device if gpu is None else gpu
        self._check_devices(func, leaves, on_gpu)
        if self.capturing is not None and gpu != self.stream.device.index:
            self.refuse_in_capture("work on a GPU that is not captured")
        self._check_capture(func, args, kwargs, on_gpu, leaves)
        plain_args, plain_kwargs = tree_map(_values, args), tree_map(_values, kwargs)
        if func is aten.empty.memory_format and math.prod(args[0]) > self.memory:  # in bytes at least
            raise torch.OutOfMemoryError("CUDA out of memory (stand-in)")
        written = _written(func, plain_args, plain_kwargs)
        if self.capturing is not None:
            for tensor in written:
                self.capturing.before_write(tensor)
        out = func(*plain_args, **plain_kwargs)
        if self.capturing is not None:
            self._record(func, plain_args, plain_kwargs, out)
        known = {id(tensor.on_host): tensor for tensor in on_gpu}
        goes_to_host = asked is not None and torch.device(asked).type == "cpu"

        def wrapped(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or goes_to_host:
                return leaf
            return known.get(id(leaf)) if id(leaf) in known else GpuTensor(leaf, gpu)

        return tree_map(wrapped, out)

    def _count(self) -> None:
        self.check_alive()
        if self._countdown is None:
            return
        self._countdown -= 1
        if self._countdown < 0:
            self._countdown = None
            if self._is_sticky:
                self.lost = self._error
            if self.capturing is not None:
                self.capturing.fail()
            raise self._error

    def _check_devices(self, func: Any, leaves: list[Any], on_gpu: list[GpuTensor]) -> None:
        if len({tensor.gpu for tensor in on_gpu}) > 1 and func is not aten.copy_.default:
            raise RuntimeError(f"Expected all tensors to be on the same device, but got two GPUs in {func}")
        host = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, GpuTensor)]
        if not on_gpu or func is aten.copy_.default or func is aten._to_copy.default:
            return
        if any(tensor.ndim for tensor in host) and "index" not in str(func):
            raise RuntimeError(f"Expected all tensors to be on the same device, but got cuda and cpu in {func}")

    def _check_capture(self, func: Any, args: Any, kwargs: Any, on_gpu: list[GpuTensor], leaves: list[Any]) -> None:
        reason = READS_BACK.get(func)
        if func is aten.index.Tensor and any(getattr(leaf, "dtype", None) == torch.bool for leaf in leaves[1:]):
            reason = "a shape depends on data"
        pageable = [
            leaf
            for leaf in leaves
            if isinstance(leaf, Tensor)
            and not isinstance(leaf, GpuTensor)
            and (leaf.ndim or func is aten.copy_.default)
        ]
        blocks = func is aten.copy_.default and not (kwargs.get("non_blocking") or args[2:3] == (True,))
        if pageable and (blocks or not all(getattr(leaf, "_is_pinned", False) for leaf in pageable)):
            reason = "a copy between pageable memory and the GPU, or one that blocks"
        if reason is not None:
            self.wait(reason)
        elif pageable:
            self.refuse_in_capture("a copy from the host")
        if self.capturing is None or "generator" not in {argument.name for argument in func._schema.arguments}:
            if self.capturing is not None and func is aten.native_dropout.default:
                self.refuse_in_capture("the default generator draws")
            return
        generator = kwargs.get("generator")
        if generator is None:
            generator = next((leaf for leaf in args if isinstance(leaf, torch._C.Generator)), None)
        registered = {getattr(each, "_cdata") for each in self.capturing.generators}  # noqa: B009
        if generator is None or generator._cdata not in registered:  # torch wraps it anew for each operation
            self.refuse_in_capture("a generator that is not registered draws")

    def _record(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        assert self.capturing is not None
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        memories = {_memory(tensor) for tensor in given}
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        new = [tensor for tensor in made if _memory(tensor) not in memories]
        if made and not new and not _written(func, args, kwargs):
            return  # a view
        for tensor in new:
            self.capturing.allocated(tensor)

        def replay() -> None:
            again = [leaf for leaf in tree_leaves(func(*args, **kwargs)) if isinstance(leaf, Tensor)]
            for tensor, fresh in zip(made, again, strict=True):
                if _memory(tensor) not in memories:
                    tensor.copy_(fresh)

        self.capturing.add(Recorded(replay, [*given, *made]))

    def run_kernel(self, run: Callable[..., Any], kernel: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run a Triton kernel in its interpreter; during a capture also record it."""
        self._count()
        tensors = [leaf for leaf in (*args, *kwargs.values()) if isinstance(leaf, Tensor)]
        if any(not isinstance(tensor, GpuTensor) for tensor in tensors):
            raise ValueError("Pointer argument cannot be accessed from Triton (cpu tensor?)")
        values = [tensor.on_host for tensor in tensors if isinstance(tensor, GpuTensor)]
        plain_args = tuple(_values(arg) for arg in args)
        plain_kwargs = {name: _values(value) for name, value in kwargs.items()}

        def replay() -> None:
            run(kernel, *plain_args, **plain_kwargs)

        if self.capturing is not None:
            self.capturing.add(Recorded(replay, values))
            return
        with _disable_current_modes(), torch.no_grad():
            replay()

    @contextmanager
    def on_stream(self, stream: Stream | None) -> Iterator[None]:
        before, device = self.stream, self.device
        if stream is not None:
            self.stream, self.device = stream, stream.device.index
        try:
            yield
        finally:
            self.stream, self.device = before, device

    @contextmanager
    def on_device(self, device: Any) -> Iterator[None]:
        before = self.device
        self.set_device(device)
        try:
            yield
        finally:
            self.device = before

    def set_device(self, device: Any) -> None:
        index = device if isinstance(device, int) else torch.device(device).index
        self.device = self.device if index is None else index

    def properties(self, device: Any = None) -> SimpleNamespace:
        """Return what torch says of a GPU; None is the current one."""
        index = device if isinstance(device, int) else None if device is None else torch.device(device).index
        index = self.device if index is None else index
        name = "Old stand-in GPU" if index in self.old else "Stand-in GPU"
        return SimpleNamespace(name=name, major=9, minor=0, uuid=f"GPU-{index}", total_memory=self.memory)

    def _replacements(self) -> Iterator[tuple[Any, str, Any]]:
        """Yield what of torch is replaced: where, the name, and what by."""
        cuda = torch.cuda
        for name, value in {
            "_lazy_init": lambda: None,
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "device_count": lambda: self.gpus,
            "current_device": lambda: self.device,
            "set_device": self.set_device,
            "device": self.on_device,
            "get_device_name": lambda device=None: "Stand-in GPU",
            "get_device_properties": self.properties,
            "get_device_capability": lambda device=None: (9, 0),
            "is_bf16_supported": lambda including_emulation=True: (
                (self.bfloat16 and self.device not in self.old) or including_emulation
            ),
            "mem_get_info": lambda device=None: (self.memory, self.memory),
            "memory_reserved": lambda device=None: 0,
            "empty_cache": lambda: self.refuse_in_capture("the cache is emptied"),
            "synchronize": lambda device=None: self.wait("the GPU"),
            "Stream": Stream,
            "Event": Event,
            "stream": self.on_stream,
            "current_stream": lambda device=None: self.stream,
            "default_stream": lambda device=None: self.default_stream,
            "CUDAGraph": Graph,
            "graph_pool_handle": Pool,
            "is_current_stream_capturing": lambda: self.capturing is not None,
        }.items():
            yield cuda, name, value
        yield torch.accelerator, "current_stream", lambda device=None: self.stream
        yield torch, "Generator", GpuGenerator
        yield torch, "tensor", _tensor
        yield torch, "autocast", _HostAutocast
        yield torch.Tensor, "pin_memory", _pinned
        yield torch.optim.Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(_grouped)
        yield torch.nn.utils.clip_grad, "_group_tensors_by_device_and_dtype", _grouped
        try:
            from triton.runtime.interpreter import InterpretedFunction
        except ImportError:
            return
        run = InterpretedFunction.run

        def run_kernel(kernel: Any, *args: Any, **kwargs: Any) -> Any:
            return self.run_kernel(run, kernel, args, kwargs)

        yield InterpretedFunction, "run", run_kernel


def _values(leaf: Any) -> Any:
    if isinstance(leaf, GpuTensor):
        return leaf.on_host
    if isinstance(leaf, torch.device) and leaf.type == "cuda":
        return HOST
    return leaf


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that an operation writes into, as its schema says; that of a batch norm says nothing."""
    found: list[Tensor] = []
    if func is aten.native_batch_norm.default:
        found += [statistic for statistic in args[3:5] if statistic is not None]
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value = args[position] if position < len(args) else kwargs.get(argument.name)
        found += [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return found


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(tensor: Tensor) -> Tensor:
    """Return all bytes of the memory that a tensor lies in."""
    with _disable_current_modes():
        return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())


_real_autocast = torch.autocast


class _HostAutocast(_real_autocast):
    """Autocast of the CPU, for tensors of the GPU."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


_real_tensor = torch.tensor


def _tensor(values: Any, *, device: Any = None, **options: Any) -> Tensor:
    """Make a tensor on the host and copy it; torch's own would ask the driver."""
    tensor = _real_tensor(values, **options)
    return tensor if device is None else tensor.to(device)


def _pinned(tensor: Tensor, *_: Any) -> Tensor:
    tensor._is_pinned = True  # type: ignore[attr-defined]
    return tensor


_real_grouped = torch.optim.Optimizer._group_tensors_by_device_and_dtype


def _grouped(tensorlistlist: Any, with_indices: bool = False) -> Any:
    """Group as torch does, under the device that the tensors say they are on."""
    groups: dict[Any, Any] = _real_grouped(tensorlistlist, with_indices)
    return {(lists[0][0].device, dtype): (lists, indices) for (_, dtype), (lists, indices) in groups.items()}
