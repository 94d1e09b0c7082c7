"""Benchmark of the report: its seconds, bytes and drawing time for a study of 1,000 trials of 20 epochs.

    python tests/benchmarks/report.py [--trials 1000] [--pruned 0.6] [--keep FILE]

The trials are written as if sixteen workers had run them, with all their attributes; nothing is trained. One in fifty
failed; `--pruned` is the share of pruned trials among the others.
"""

import argparse
import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial

from kmnist_search.archive.records import TrialRecord, add_trials
from kmnist_search.database.storage import open_storage
from kmnist_search.study.opening import open_study
from kmnist_search.study_file.parser import load
from kmnist_search.study_file.schema import StudyFile

EPOCHS = 20
WORKERS = 16
STUDY = f"""
[study]
name = "bench"

[train]
epochs = {EPOCHS}

[space]
learning_rate = {{ low = 1e-4, high = 1e-2, log = true }}
weight_decay = {{ low = 1e-3, high = 1.0, log = true }}
batch_size = {{ choices = [64, 128, 256, 512] }}
dim = {{ choices = [64, 128, 256] }}
dropout = {{ low = 0.0, high = 0.3 }}
num_blocks = {{ low = 1, high = 8 }}
shift = {{ low = 0.0, high = 4.0 }}
patch_size = {{ choices = [4, 7, 14] }}
"""
BEGUN = datetime(2026, 11, 20, tzinfo=UTC)


def proposals(file: StudyFile, number: int) -> list[FrozenTrial]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(number):
        trial = study.ask()
        for name, hyperparameter in file.space.items():
            hyperparameter.suggest(trial, name)
    return study.get_trials(deepcopy=False)


def curve_of(params: dict[str, Any], chance: random.Random) -> list[float]:
    missed = abs(math.log10(params["learning_rate"]) + 2.7) / 8 + abs(params["dropout"] - 0.1) / 3
    end = 0.985 - 0.1 * missed - 0.02 / params["num_blocks"] + chance.gauss(0, 0.002)
    return [end - 0.5 * math.exp(-0.35 * epoch) + chance.gauss(0, 0.003) for epoch in range(1, EPOCHS + 1)]


def record_of(proposed: FrozenTrial, pruned: float, chance: random.Random) -> TrialRecord:
    number, curve = proposed.number, curve_of(proposed.params, chance)
    state: Literal["FAIL", "PRUNED", "COMPLETE"] = "COMPLETE"
    if chance.random() < 0.02:
        state = "FAIL"
    elif chance.random() < pruned:
        state = "PRUNED"
    epochs = chance.choice([1, 3, 9]) if state == "PRUNED" else EPOCHS
    began = BEGUN + timedelta(seconds=45 * (number // WORKERS) + chance.random())
    ended = began + timedelta(seconds=2 * epochs)
    attempt = {
        "token": f"{number:032x}",
        "host": f"node{number % WORKERS // 4}",
        "machine": "a machine",
        "pid": 1000 + number % WORKERS,
        "born": 1.0,
        "began_at": began.isoformat(),
        "ended_at": ended.isoformat(),
        "how": state.lower(),
        "epochs": epochs,
    }
    attributes: dict[str, Any] = {
        "attempts": [attempt],
        "config": {"model": proposed.params},
        "config_digest": f"{number:012x}",
        "num_parameters": 100_000,
        "flops_per_image": 1_000_000,
        "seconds": 2.0 * epochs,
        "images_per_second": 20_000.0,
        "device": "NVIDIA H200",
        "seed": number,
        **{f"{name}_curve": curve[:epochs] for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy")},
    }
    if state == "FAIL":
        attributes["reason"] = chance.choice(["out of memory: OutOfMemoryError: CUDA out of memory", "RuntimeError: x"])
    return TrialRecord(
        number=number,
        state=state,
        datetime_start=began,
        datetime_complete=ended,
        params={
            name: (float(spec.to_internal_repr(proposed.params[name])), distribution_to_json(spec))
            for name, spec in proposed.distributions.items()
        },
        values=(curve[epochs - 1],) if state == "COMPLETE" else (),
        intermediate_values=dict(enumerate(curve[:epochs], start=1)),
        user_attrs={key: json.dumps(value) for key, value in attributes.items()},
        system_attrs={},
    )


def make_study(url: str, folder: Path, number: int, pruned: float) -> None:
    path = folder / "bench.toml"
    path.write_text(STUDY)
    file = load(path)
    study = open_study(open_storage(url, create=True), file)
    chance = random.Random(0)
    with study.storage.writing() as connection:
        records = (record_of(each, pruned, chance) for each in proposals(file, number))
        add_trials(connection, study.queue.study_id, records)


def seconds_to_draw(page_file: Path) -> float:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        started = time.perf_counter()
        page.goto(page_file.as_uri())
        page.wait_for_function("document.querySelectorAll('.chart .main-svg').length > 0")
        page.evaluate("document.body.offsetHeight")
        seconds = time.perf_counter() - started
        browser.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--pruned", type=float, default=0.0)
    parser.add_argument("--keep", type=Path, help="copy the page to this file")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'bench.db'}"
        make_study(url, folder, chosen.trials, chosen.pruned)
        page_file = folder / "report.html"
        command = [sys.executable, "-m", "kmnist_search.cli", "report", "--storage", url, "--out", str(page_file)]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds, size = time.perf_counter() - started, page_file.stat().st_size
        print(f"{chosen.trials} trials, {chosen.pruned:.0%} pruned: written in {seconds:.1f} s, {size / 1e6:.2f} MB")
        if shutil.which("chromium"):
            print(f"drawn by Chromium in {seconds_to_draw(page_file):.1f} s")
        if chosen.keep:
            shutil.copy(page_file, chosen.keep)


if __name__ == "__main__":
    main()
