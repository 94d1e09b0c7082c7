"""The table of real learning curves: written from studies, and read for the simulator.

    python tests/benchmarks/search/curves.py STORAGE STUDY > tests/benchmarks/search/kmnist.csv

A row is one training: its hyperparameters, its seconds, and the four figures of each epoch. The studies are
`kmnist.toml` and `fashion-mnist.toml` in this folder; `kmnist-search run FILE --data-dir DATA_DIR` trains them.
"""

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[3]))

FIGURES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
HYPERPARAMETERS = (
    "batch_size",
    "learning_rate",
    "weight_decay",
    "patch_size",
    "dim",
    "token_width",
    "channel_width",
    "num_blocks",
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Curves:
    """Trainings of T configurations over E epochs.

    Attributes:
        params: the hyperparameters of each training.
        accuracy_TE: validation accuracy; that of a guess after the loss was not finite any more.
        seconds_T: seconds of an epoch.
    """

    params: list[dict[str, float]]
    accuracy_TE: NDArray[np.float64]
    seconds_T: NDArray[np.float64]


def read(path: Path) -> Curves:
    """Read the curves of a table."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    epochs = sum(column.startswith("val_accuracy_") for column in rows[0])
    return Curves(
        params=[{name: float(row[name]) for name in HYPERPARAMETERS} for row in rows],
        accuracy_TE=np.array([[float(row[f"val_accuracy_{e}"] or 0.1) for e in range(1, epochs + 1)] for row in rows]),
        seconds_T=np.array([float(row["seconds_an_epoch"]) for row in rows]),
    )


def rows(storage: str, study: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each finished trial of a study that the product trained."""
    from kmnist_search.database.storage import open_storage
    from kmnist_search.study.opening import find_study

    found = find_study(open_storage(storage, create=False), study)
    trials = found.trials()
    found.with_details(trials)
    for trial in trials:
        if not trial.state.is_finished() or "seconds" not in trial.user_attrs:
            continue
        curve = {figure: trial.user_attrs.get(f"{figure}_curve", []) for figure in FIGURES}
        row: dict[str, Any] = {"trial": trial.number, **{name: f"{trial.params[name]:.6g}" for name in HYPERPARAMETERS}}
        row["seconds_an_epoch"] = f"{trial.user_attrs['seconds'] / max(len(curve['val_accuracy']), 1):.3g}"
        for figure, values in curve.items():
            for epoch in range(1, found.epochs + 1):
                row[f"{figure}_{epoch}"] = f"{values[epoch - 1]:.5f}" if epoch <= len(values) else ""
        yield row


def main() -> None:
    found = list(rows(*sys.argv[1:]))
    writer = csv.DictWriter(sys.stdout, fieldnames=list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)


if __name__ == "__main__":
    main()
