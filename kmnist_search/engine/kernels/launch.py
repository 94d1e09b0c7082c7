"""How kernels are launched: options and block sizes that all of them share.

Kernels take sizes at run time; only powers of two (blocks), flags and dtypes are compiled in, so that a new
architecture finds nearly all its kernels compiled. A number that is a multiple of 16 makes a variant of its own, with
16-byte accesses; where that gains nothing (counts of rows, short vectors) it is switched off by `do_not_specialize`.
"""

from typing import Any, Final

from torch import Tensor
from triton import next_power_of_2

#: Elements of one tile. A forward gives it 4 warps: 16 elements a thread, two 16-byte loads of bfloat16 for each tensor
#: read. A backward, which keeps sums of that size in registers too, gives it 8; with 4 ptxas spilled. The registers are
#: the compiler's word, the speed is reasoned, not measured.
TILE: Final = 2048
FORWARD_WARPS: Final = 4
BACKWARD_WARPS: Final = 8

#: Tiles that a looping program has in flight: loads of the next run while this one is computed. Reasoned, not measured.
STAGES: Final = 2

#: Products and sums may fuse. Triton 3.9 warns unless a launch says so.
OPTIONS: Final[dict[str, Any]] = {"enable_fp_fusion": True}


def row_blocks(columns: int, warps: int) -> dict[str, int]:
    """Return the launch arguments of a kernel whose tiles hold whole rows: BLOCK_R x BLOCK_D, and its warps.

    A row wider than a tile has a program of its own, with more warps.
    """
    # At least 16 columns: rows of very few would need a tile of very many of them.
    width = max(power_of_2(columns), 16)
    return {"BLOCK_R": max(TILE // width, 1), "BLOCK_D": width, "num_warps": min(warps * max(width // TILE, 1), 16)}


def power_of_2(number: int) -> int:
    """Return the smallest power of two that is at least `number`."""
    return int(next_power_of_2(number))


def blocks(number: int, size: int) -> int:
    """Return how many blocks of `size` hold `number`."""
    return -(-number // size)


def stride(vectors_SN: Tensor | None) -> int:
    """Return the distance between replicas of (S, n) vectors, which lie in a flat buffer; 0 for none."""
    return 0 if vectors_SN is None else vectors_SN.stride(0)
