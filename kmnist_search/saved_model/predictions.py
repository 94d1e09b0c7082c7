"""Predictions for many image files, as a table, CSV or JSON."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypedDict

from rich.table import Table
from rich.text import Text

from kmnist_search.errors import ImageError
from kmnist_search.saved_model.model import Prediction
from kmnist_search.wording import percent

SUFFIXES = (".png", ".jpg", ".jpeg")


class Row(TypedDict):
    """The prediction for one image, as it is shown."""

    file: str
    label: int
    character: str
    reading: str
    probability: float


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Return the given files, and for each given folder its PNG and JPEG files, sorted by name.

    Raises:
        ImageError: a folder has none, or cannot be read.
    """
    return [file for path in paths for file in _files_of(path)]


def _files_of(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}.") from None
    if not found:
        raise ImageError(f"{path}: there is no PNG or JPEG file in this folder (folders inside it are not searched).")
    return found


def rows(names: Iterable[str], predictions: Iterable[Prediction]) -> list[Row]:
    """Return the predictions for the images of these names, in the same order."""
    return [
        Row(
            file=name,
            label=prediction.label,
            character=prediction.name.text,
            reading=prediction.name.reading,
            probability=round(prediction.probability, 6),
        )
        for name, prediction in zip(names, predictions, strict=True)
    ]


def as_table(found: Sequence[Row]) -> Table:
    """Return a table for people; it has a column for readings if there are any."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    has_readings = any(row["reading"] for row in found)
    for column in ("file", "character", *(["reading"] if has_readings else [])):
        table.add_column(column, overflow="fold")
    table.add_column("probability", justify="right")
    for row in found:
        reading = [Text(row["reading"])] if has_readings else []
        table.add_row(Text(row["file"]), Text(row["character"]), *reading, percent(row["probability"]))
    return table


def as_csv(found: Iterable[Row]) -> str:
    """Return a header and one line for each image."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(Row.__annotations__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()
