"""Benchmark of rungs: how well the accuracy after each epoch ranks configurations as their final accuracy does.

    python tests/benchmarks/search/rungs.py TABLE [OTHER ...]

For each table it prints Spearman's rank correlation between the accuracy after each epoch and the final accuracy in
TABLE, over all configurations that both have and over the better half of them, which a rung has to tell apart. In the
row of TABLE itself both are of the same training; OTHER may hold other seeds, shorter schedules or other data sets.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.benchmarks.search.curves import Curves, read

Array = NDArray[np.float64]


def in_both(table: Curves, other: Curves) -> tuple[Array, Array]:
    """Return the final accuracy in `table`, (T,), and the curve in `other`, (T, E), of the T shared configurations."""
    rows = {tuple(params.values()): row for row, params in enumerate(table.params)}
    pairs = [(rows[key], row) for row, params in enumerate(other.params) if (key := tuple(params.values())) in rows]
    ours, theirs = zip(*pairs, strict=True)
    return table.accuracy_TE[list(ours), -1], other.accuracy_TE[list(theirs)]


def correlations(final_T: Array, curve_TE: Array) -> Array:
    """Return the rank correlation of each epoch's accuracy with the final one, (E,)."""
    return np.array([spearmanr(final_T, accuracy_T).statistic for accuracy_T in curve_TE.T])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("others", type=Path, nargs="*")
    chosen = parser.parse_args()
    table = read(chosen.table)
    for path in (chosen.table, *chosen.others):
        final_T, curve_TE = in_both(table, read(path))
        better_T = final_T >= np.median(final_T)
        for which, chosen_T in (("all", np.full(len(final_T), True)), ("better half", better_T)):
            figures = "".join(f"{each:6.2f}" for each in correlations(final_T[chosen_T], curve_TE[chosen_T]))
            print(f"{path.stem:24}{which:14}{chosen_T.sum():4} configurations, by epoch:{figures}")


if __name__ == "__main__":
    main()
