"""Checks of the images and of the folder for checkpoints."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from kmnist_search.data import files
from kmnist_search.data.catalog import IDX_DATASETS
from kmnist_search.data.search_data import load_training_set
from kmnist_search.doctor.finding import Finding
from kmnist_search.errors import DataError
from kmnist_search.wording import duration_text

MIB = 2**20
#: Written to measure the pace of a folder: the checkpoint of a net of two million parameters, 16 bytes each.
PROBE_BYTES = 32 * MIB
#: A slower folder takes seconds for each checkpoint, of which a trial writes one every 30 s at most.
SLOW_MIB_PER_SECOND = 20.0


def images(data_dir: Path | None) -> Iterator[Finding]:
    """Check whether KMNIST is there and undamaged. The test set stays closed, and nothing is downloaded."""
    folder = data_dir or files.default_data_dir()
    kmnist = IDX_DATASETS["kmnist"]
    if files.found_training_files(kmnist, folder) is None:
        yield Finding(
            name="images",
            state="absent",
            text=f"KMNIST is not in {files.raw_folder(kmnist, folder)}",
            advice="The first run downloads it (21 MB). Without internet, copy its four files there, or name another "
            "folder with --data-dir.",
        )
        return
    try:
        found = load_training_set("kmnist", folder)
    except DataError as error:
        yield Finding(name="images", state="bad", text=str(error), advice="Remove this file; a run downloads it again.")
        return
    number = f"{len(found.labels):,} training images, checksums are right"
    yield Finding(name="images", state="ok", text=f"KMNIST in {files.raw_folder(kmnist, folder)}: {number}")


def checkpoints(folder: Path) -> Iterator[Finding]:
    """Check whether the folder for checkpoints can be written, and how fast. Nothing is left in it."""
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    made = "" if there == folder.resolve() else f", which the first run makes in {there}"
    try:
        seconds = _seconds_to_write(there)
    except OSError as error:
        yield Finding(
            name="checkpoints",
            state="bad",
            text=f"{folder}{made}: no file can be written: {error.strerror}",
            advice="Name another folder with --checkpoints, or fix its permissions.",
        )
        return
    pace, free = PROBE_BYTES / MIB / seconds, shutil.disk_usage(there).free
    problems = {
        f"it takes {duration_text(seconds)} for {PROBE_BYTES // MIB} MiB": pace < SLOW_MIB_PER_SECOND,
        "less than 1 GiB is free": free < 1024 * MIB,
    }
    slow = [problem for problem, is_there in problems.items() if is_there]
    yield Finding(
        name="checkpoints",
        state="bad" if slow else "ok",
        text=f"{folder}{made}: {pace:,.0f} MiB/s, {free / 1024 / MIB:,.1f} GiB free",
        advice=f"{' and '.join(slow).capitalize()}. Name another folder with --checkpoints." if slow else "",
    )


def _seconds_to_write(folder: Path) -> float:
    content = os.urandom(PROBE_BYTES)
    with tempfile.TemporaryFile(dir=folder) as file:
        begun = time.perf_counter()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return time.perf_counter() - begun
