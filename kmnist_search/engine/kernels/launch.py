"""The launch of a kernel, and the options and block sizes that all kernels share.

Sizes are run-time arguments; only powers of two (blocks), flags and dtypes are compiled in, so a new architecture finds
nearly all its kernels compiled. Triton compiles a variant with 16-byte accesses for multiples of 16;
`do_not_specialize` switches that off where it gains nothing (counts of rows, short vectors).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from torch import Tensor
from triton import next_power_of_2

#: Elements of one tile. A forward pass uses 4 warps: 16 elements a thread, two 16-byte loads of bfloat16 for each
#: tensor read. A backward pass, which also keeps sums of that size in registers, uses 8; with 4 ptxas spilled. The
#: compiler reports the registers; the speed is reasoned, not measured.
TILE: Final = 2048
FORWARD_WARPS: Final = 4
BACKWARD_WARPS: Final = 8

#: Tiles in flight in a looping program: the next loads run during this computation. Reasoned, not measured.
STAGES: Final = 2

#: Products and sums may fuse. Triton 3.9 warns unless a launch says so.
OPTIONS: Final[dict[str, Any]] = {"enable_fp_fusion": True}

#: Called for each launch: the kernel, its grid, its arguments, its constants and options.
Launcher = Callable[[Any, tuple[int, ...], Sequence[Any], Mapping[str, Any]], None]


def _run(kernel: Any, grid: tuple[int, ...], arguments: Sequence[Any], constants: Mapping[str, Any]) -> None:
    kernel[grid](*arguments, **constants)


_launcher: Launcher = _run


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Run a kernel, compiled for these constants and for the kinds of its arguments if it was not yet."""
    _launcher(kernel, grid, arguments, {**constants, **OPTIONS})


@contextmanager
def launching_by(launcher: Launcher) -> Iterator[None]:
    """While entered, `launcher` is called instead of each kernel in this process."""
    global _launcher
    _launcher = launcher
    try:
        yield
    finally:
        _launcher = _run


def row_blocks(columns: int, warps: int) -> dict[str, int]:
    """Return the launch arguments of a kernel whose tiles hold whole rows: BLOCK_R x BLOCK_D and the warps.

    A row wider than a tile gets its own program, with more warps.
    """
    # At least 16 columns: very narrow rows would need a very tall tile.
    width = max(power_of_2(columns), 16)
    return {"BLOCK_R": max(TILE // width, 1), "BLOCK_D": width, "num_warps": min(warps * max(width // TILE, 1), 16)}


def power_of_2(number: int) -> int:
    """Return the smallest power of two that is at least `number`."""
    return int(next_power_of_2(number))


def blocks(number: int, size: int) -> int:
    """Return the number of blocks of `size` that hold `number`."""
    return -(-number // size)


def stride(vectors_SN: Tensor | None) -> int:
    """Return the distance between replicas of (S, n) vectors in a flat buffer; 0 for None."""
    return 0 if vectors_SN is None else vectors_SN.stride(0)
