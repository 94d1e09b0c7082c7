"""Measurement of the margins of KMNIST's training images, which have none; so preprocessing leaves none.

python tests/benchmarks/margins.py DATA_DIR
"""

import sys
from pathlib import Path

import numpy as np

from kmnist_search.data import files, idx
from kmnist_search.data.catalog import IDX_DATASETS

INK = 64


def main() -> None:
    dataset = IDX_DATASETS["kmnist"]
    path, _ = files.training_files(dataset, Path(sys.argv[1]))
    images = idx.read(path, dimensions=3, md5=dataset.train_images.md5)
    ink = np.asarray(images >= INK)
    rows, columns = np.asarray(ink.any(axis=2)), np.asarray(ink.any(axis=1))
    top, bottom = rows.argmax(axis=1), rows[:, ::-1].argmax(axis=1)
    left, right = columns.argmax(axis=1), columns[:, ::-1].argmax(axis=1)
    height, width = 28 - top - bottom, 28 - left - right
    longer = np.maximum(height, width)
    print(
        f"margins: top {top.mean():.2f}  bottom {bottom.mean():.2f}  left {left.mean():.2f}  right {right.mean():.2f}"
    )
    print(f"ink: height {height.mean():.2f}  width {width.mean():.2f}  longer side {longer.mean():.2f}")
    print(f"longer side is 28: {(longer == 28).mean():.1%}")
    print(f"centre: x {(left - right).mean() / 2:+.2f}  y {(top - bottom).mean() / 2:+.2f}")


if __name__ == "__main__":
    main()
