"""Benchmark of everything that needs a GPU, in nine minutes: tests, bench, other loops, a search of 100 trials.

    python tests/benchmarks/gpu.py DATA_DIR OUT_DIR
    python tests/benchmarks/gpu.py DATA_DIR OUT_DIR --only search    # with all the time for one part
    python tests/benchmarks/gpu.py DATA_DIR OUT_DIR --only references    # the published systems, a part of its own

It runs from a bare checkout if the dependencies are installed. DATA_DIR has KMNIST/raw; the references also need
FashionMNIST/raw and MNIST/raw. Each part has a time limit; a part that fails does not stop the others. OUT_DIR gets the
output of each part, and summary.json with every figure beside its target. The exit code is 0 if all targets are met,
otherwise 1.
"""

import argparse
import contextlib
import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
TOTAL_SECONDS = 530.0
#: Limits of the parts before the search, which has the time that is left.
LIMITS = {"tests": 110.0, "bench": 90.0, "loops": 60.0}
#: A search is asked to stop so long before its limit, so that it can print its result.
SEARCH_STOPS_BEFORE = 20.0
TRIALS = 100
SAMPLE_MILLISECONDS = 200
PARTS = (*LIMITS, "search")
REFERENCES = "references"
CLI = (sys.executable, "-m", "kmnist_search.cli")


@dataclass(frozen=True, kw_only=True)
class Part:
    """The end of a part: its exit code, None if its time ran out, and its seconds."""

    name: str
    exit_code: int | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured value beside its target; None if it could not be measured."""

    name: str
    value: float | None
    target: str
    is_met: bool


def at_most(name: str, value: float | None, limit: float, unit: str = "s") -> Figure:
    met = value is not None and value <= limit
    return Figure(name=name, value=value, target=f"<= {limit:g} {unit}".rstrip(), is_met=met)


def at_least(name: str, value: float | None, limit: float, unit: str = "") -> Figure:
    met = value is not None and value >= limit
    return Figure(name=name, value=value, target=f">= {limit:g} {unit}".rstrip(), is_met=met)


# The parts.


def run_part(
    name: str,
    command: Sequence[str],
    out: Path,
    *,
    seconds: float,
    environment: Mapping[str, str],
    cwd: Path = CHECKOUT,
) -> Part:
    """Run a part with its output in `NAME.out` and `NAME.err`; kill it and its children when its time is up."""
    started = time.monotonic()
    with (out / f"{name}.out").open("wb") as stdout, (out / f"{name}.err").open("wb") as stderr:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=stdout, stderr=stderr, start_new_session=True
        )
        exit_code: int | None = None
        try:
            exit_code = process.wait(max(seconds, 1.0))
        except subprocess.TimeoutExpired:
            print(f"{name}: stopped after its {seconds:.0f} s", flush=True)
        finally:
            with contextlib.suppress(ProcessLookupError):  # as a rule nothing is left of it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    part = Part(name=name, exit_code=exit_code, seconds=time.monotonic() - started)
    print(f"{name}: exit code {part.exit_code} after {part.seconds:.0f} s", flush=True)
    return part


def files_with_gpu_tests() -> list[str]:
    """Return the test files with GPU tests: the others may import packages that are not installed."""
    found = sorted((CHECKOUT / "tests").rglob("test_*.py"))
    return [str(path) for path in found if "mark.gpu" in path.read_text(encoding="utf-8")]


def tests_command(out: Path) -> list[str]:
    # Without the project's options: they ask for plugins.
    options = ["-o", "addopts=", "-p", "no:cacheprovider", "-q", f"--junitxml={out / 'tests.xml'}", "-m", "gpu"]
    return [sys.executable, "-m", "pytest", *options, *files_with_gpu_tests()]


def bench_command() -> list[str]:
    return [*CLI, "bench", "--device", "cuda", "--json"]


def loops_command() -> list[str]:
    script = CHECKOUT / "tests" / "benchmarks" / "loops.py"
    return [sys.executable, str(script), "--device", "cuda", "--net", "reference", "--json"]


def search_command(data_dir: Path, folder: Path, seconds: float) -> list[str]:
    return [
        *(*CLI, "run", str(CHECKOUT / "studies" / "kmnist.toml"), "--trials", str(TRIALS), "--device", "cuda"),
        *("--storage", f"sqlite:///{folder / 'gpu.db'}", "--data-dir", str(data_dir)),
        *("--timeout", f"{max(seconds, 1):.0f}s", "--json"),
    ]


def references_command(data_dir: Path, out: Path, folder: Path) -> list[str]:
    return [
        *(*CLI, REFERENCES, "--device", "cuda", "--data-dir", str(data_dir), "--out", str(out / REFERENCES)),
        *("--storage", f"sqlite:///{folder / 'references.db'}", "--json"),
    ]


def first_gpu(environment: Mapping[str, str]) -> str:
    """Return the GPU that "cuda" is, by number or UUID, as nvidia-smi counts: it ignores CUDA_VISIBLE_DEVICES."""
    return environment.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"


@contextlib.contextmanager
def sampled_utilisation(file: Path) -> Iterator[None]:
    """While entered, write the utilisation of the GPU to `file`, if there is nvidia-smi."""
    query = "--query-gpu=timestamp,utilization.gpu,memory.used,power.draw"
    command = [
        "nvidia-smi",
        "-i",
        first_gpu(os.environ),
        query,
        "--format=csv,noheader,nounits",
        "-lms",
        str(SAMPLE_MILLISECONDS),
    ]
    with file.open("wb") as output:
        try:
            process = subprocess.Popen(command, stdout=output)
        except FileNotFoundError:
            print("there is no nvidia-smi: the utilisation of the GPU is not measured", flush=True)
            yield
            return
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def environment_of(folder: Path) -> dict[str, str]:
    """Return an environment in which this checkout is the package, installed or not.

    The program asks for its own version, which only an installed package has; a bare checkout gets its metadata from
    pyproject.toml, in `folder`.
    """
    paths = [str(CHECKOUT)]
    try:
        version("kmnist-search")
    except PackageNotFoundError:
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        info = folder / f"kmnist_search-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
        )
        paths.append(str(folder))
    if before := os.environ.get("PYTHONPATH"):
        paths.append(before)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


# The summary, from the files that the parts left.


def read_json(file: Path) -> dict[str, Any]:
    """Return the JSON that a part printed; empty if it printed none or was cut off."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return values if isinstance(values, dict) else {}


def busy_share(file: Path) -> float | None:
    """Return the mean utilisation between the first and the last busy sample, about the first and the last step."""
    try:
        rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines()))
    except OSError:
        return None
    shares = [float(row[1]) / 100 for row in rows if len(row) == 4 and row[1].strip().isdigit()]
    busy = [position for position, share in enumerate(shares) if share > 0]
    return statistics.fmean(shares[busy[0] : busy[-1] + 1]) if busy else None


def tests_figures(out: Path) -> list[Figure]:
    try:
        suites = list(ElementTree.parse(out / "tests.xml").getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return [at_least("GPU tests passed", None, 1)]
    counts = {
        what: sum(int(suite.get(what, 0)) for suite in suites) for what in ("tests", "failures", "errors", "skipped")
    }
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    return [at_least("GPU tests passed", passed, 1), at_most("GPU tests failed", failed, 0, "")]


def bench_figures(bench: Mapping[str, Any]) -> list[Figure]:
    nets = {net["name"]: net for net in bench.get("nets", [])}

    def epochs(name: str) -> list[dict[str, Any]]:
        return nets[name]["at_once"] if name in nets else []

    alone = next((each["epoch_seconds"] for each in epochs("reference")), None)
    packed = min((each["epoch_seconds"] for each in epochs("reference")), default=None)
    share = max((each["share_of_peak"] for each in epochs("reference")), default=None)
    small = min((each["epoch_seconds"] for each in epochs("small")), default=None)
    return [
        at_most("reference net, an epoch alone", alone, 0.25),
        at_most("reference net, an epoch packed", packed, 0.15),
        at_least("reference net packed, share of the measured peak", share, 0.20),
        at_most("small net, an epoch packed", small, 0.03),
        at_most("set-up, of the slowest net", max((net["setup_seconds"] for net in nets.values()), default=None), 1.0),
    ]


def loops_figures(loops: Mapping[str, Any]) -> list[Figure]:
    ratios = {each["name"]: each["ratio"] for each in loops.get("comparisons", [])}
    return [
        at_least("DataLoader loop takes longer", ratios.get("DataLoader, 0 workers"), 35, "times"),
        at_least("plain CUDA graph takes longer", ratios.get("plain CUDA graph"), 3, "times"),
    ]


def search_figures(search: Mapping[str, Any], seconds: float | None, busy: float | None) -> list[Figure]:
    finished = search.get("trials", {}).get("finished")
    took = seconds if finished is not None and finished >= TRIALS else None
    return [
        at_least("trials finished", finished, TRIALS),
        at_most(f"seconds for {TRIALS} trials", took, 300),
        at_least("GPU busy from the first to the last step", busy, 0.90),
    ]


def references_figures(comparison: Mapping[str, Any]) -> list[Figure]:
    """Return how far each system is from its published accuracy on the test set, in points."""
    return [
        at_most(
            f"{each['name']}, points from its published accuracy",
            100 * abs(each["reproduced"]["test_accuracy"] - each["accuracy"]) if each["reproduced"] else None,
            1.0,
            "points",
        )
        for each in comparison["references"]
        if each["measured_on"] == "test"
    ]


def summary(out: Path, parts: Sequence[Part]) -> list[Figure]:
    """Return all figures, from the files in `out`."""
    seconds = {part.name: part.seconds for part in parts}
    if REFERENCES in seconds:
        comparison = read_json(out / f"{REFERENCES}.out")
        took = seconds[REFERENCES] if comparison else None
        return [
            at_most("seconds for all references", took, 600),
            *(references_figures(comparison) if comparison else ()),
        ]
    return [
        *tests_figures(out),
        *bench_figures(read_json(out / "bench.out")),
        *loops_figures(read_json(out / "loops.out")),
        *search_figures(read_json(out / "search.out"), seconds.get("search"), busy_share(out / "utilisation.csv")),
    ]


def lines(figures: Sequence[Figure]) -> list[str]:
    """Return one line for each figure."""
    return [
        f"{'ok  ' if figure.is_met else 'MISS'}  {figure.name:52} "
        f"{'not measured' if figure.value is None else f'{figure.value:.4g}':>12}   {figure.target}"
        for figure in figures
    ]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line, and check its paths before anything runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--only", choices=(*PARTS, REFERENCES))
    chosen = parser.parse_args(given)
    if not (chosen.data_dir / "KMNIST" / "raw").is_dir():
        parser.error(f"{chosen.data_dir} has no KMNIST/raw: name the folder that the images are in")
    chosen.data_dir, chosen.out_dir = chosen.data_dir.resolve(), chosen.out_dir.resolve()
    try:
        chosen.out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"{chosen.out_dir} cannot be made: {error}")
    return chosen


def main() -> None:
    chosen = arguments()
    data_dir, out, began, parts = chosen.data_dir, chosen.out_dir, time.monotonic(), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        environment = environment_of(folder)
        for name in PARTS if chosen.only is None else (chosen.only,):
            left = TOTAL_SECONDS - (time.monotonic() - began)
            seconds = left if chosen.only else min(LIMITS.get(name, left), left)
            match name:
                case "tests":
                    parts.append(run_part(name, tests_command(out), out, seconds=seconds, environment=environment))
                case "bench":
                    command = bench_command()
                    parts.append(run_part(name, command, out, seconds=seconds, environment=environment))
                case "loops":
                    command = loops_command()
                    parts.append(run_part(name, command, out, seconds=seconds, environment=environment))
                case "search":
                    command = search_command(data_dir, folder, seconds - SEARCH_STOPS_BEFORE)
                    with sampled_utilisation(out / "utilisation.csv"):
                        parts.append(run_part(name, command, out, seconds=seconds, environment=environment, cwd=folder))
                case "references":
                    command = references_command(data_dir, out, folder)
                    parts.append(run_part(name, command, out, seconds=seconds, environment=environment, cwd=folder))
    figures = summary(out, parts)
    written = {"parts": [asdict(part) for part in parts], "figures": [asdict(figure) for figure in figures]}
    (out / "summary.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    print("\n".join(lines(figures)))
    sys.exit(0 if all(figure.is_met for figure in figures) else 1)


if __name__ == "__main__":
    main()
