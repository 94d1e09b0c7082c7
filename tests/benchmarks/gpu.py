"""Benchmark of everything that needs a GPU, in stretches of nine minutes that resume where the last one ended.

    python tests/benchmarks/gpu.py DATA_DIR OUT_DIR                  # again and again, until it says that all is done
    python tests/benchmarks/gpu.py DATA_DIR OUT_DIR --only search    # with all the time for one part

It runs from a bare checkout if the dependencies are installed. DATA_DIR has KMNIST/raw; the references also need
FashionMNIST/raw and MNIST/raw. What settles most comes first: what works at all (doctor with the self-check, then every
kind of training), the tests, the paces of two nets, a search of 100 trials, other loops, the published systems. Each
figure is printed, and kept in OUT_DIR/figures.jsonl, as soon as it is known: what is killed loses only what it was
measuring. The exit code is 0 if all is done and all targets are met, 1 if a target is missed, 2 if parts are left.
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
import threading
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
#: A stretch: where commands may run for ten minutes, it ends before.
STRETCH_SECONDS = 530.0
#: The parts in their order, and the seconds that each may take in a stretch.
LIMITS = {
    "doctor": 150.0,
    "matrix": 240.0,
    "tests": 240.0,
    "paces": 240.0,
    "search": 500.0,
    "loops": 120.0,
    "references": 500.0,
}
#: A part is not begun with less time than this.
FEWEST_SECONDS = 45.0
#: A search is asked to stop so long before its limit, so that it can print its result.
SEARCH_STOPS_BEFORE = 20.0
TRIALS = 100
SAMPLE_MILLISECONDS = 200
REFERENCES = "references"
CLI = (sys.executable, "-m", "kmnist_search.cli")
FIGURES_SCRIPT = CHECKOUT / "tests" / "benchmarks" / "gpu_figures.py"
#: The exit code of its process if an error has cost it the GPU; the next process measures the rest.
LOST = 3

#: Upper and lower limits by the name of a figure; the packed reference net has one for each GPU.
AT_MOST = {
    "doctor, things that do not work": 0,
    "GPU tests failed": 0,
    "reference net, seconds an epoch, 1 at once": 0.25,
    "small net, seconds an epoch, 8 at once": 0.03,
    "new architecture, seconds of set-up": 1.0,
    f"seconds for {TRIALS} trials": 300,
}
AT_LEAST = {
    "GPU tests passed": 1,
    "reference net, share of peak, 8 at once": 0.20,
    "trials finished": TRIALS,
    "GPU busy from the first to the last step": 0.90,
    "DataLoader loop takes longer, times": 35,
    "plain CUDA graph takes longer, times": 3,
}
SEARCHED = "seconds of the search so far"
PACKED = "reference net, seconds an epoch, 8 at once"
PACKED_AT_MOST = {"H200": 0.15, "H100": 0.21}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured value; None if it could not be measured.

    Attributes:
        spread: the smallest and the largest of its repeats.
        note: the reason of a failure, or what else belongs to it.
    """

    name: str
    value: float | None
    spread: tuple[float, float] | None = None
    note: str = ""

    def target(self, gpu: str) -> tuple[str, bool] | None:
        """Return the target on a GPU and whether it is met; None if there is none."""
        most, least = AT_MOST.get(self.name), AT_LEAST.get(self.name)
        if self.name == PACKED:
            most = next((limit for model, limit in PACKED_AT_MOST.items() if model in gpu), None)
        if self.name.endswith(": trains"):
            least = 1
        if self.name.endswith("points from its published accuracy"):
            most = 1.0
        if most is not None:
            return f"<= {most:g}", self.value is not None and self.value <= most
        if least is not None:
            return f">= {least:g}", self.value is not None and self.value >= least
        return None

    def line(self, gpu: str) -> str:
        target = self.target(gpu)
        sign = "    " if target is None else "ok  " if target[1] else "MISS"
        value = "not measured" if self.value is None else f"{self.value:.4g}"
        spread = f"({self.spread[0]:.4g} to {self.spread[1]:.4g})" if self.spread else ""
        return f"{sign}  {self.name:52} {value:>12} {spread:22} {target[0] if target else '':10} {self.note}".rstrip()


class Book:
    """The figures and the finished parts of all stretches, in the files `figures.jsonl` and `parts.json`."""

    def __init__(self, out: Path) -> None:
        self.file, self._parts_file = out / "figures.jsonl", out / "parts.json"
        self.figures = {figure.name: figure for figure in map(_figure, _lines(self.file))}
        self.parts: dict[str, dict[str, Any]] = read_json(self._parts_file)

    @property
    def gpu(self) -> str:
        """The model of the GPU, empty while it is not known."""
        return self.figures["GPU"].note if "GPU" in self.figures else ""

    def add(self, figure: Figure) -> None:
        """Keep a figure and print it."""
        self.figures[figure.name] = figure
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(figure)) + "\n")
        print(figure.line(self.gpu), flush=True)

    def end(self, part: str, exit_code: int, seconds: float) -> None:
        """Note that a part is finished."""
        self.parts[part] = {"exit_code": exit_code, "seconds": seconds}
        self._parts_file.write_text(json.dumps(self.parts, indent=2) + "\n", encoding="utf-8")


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def _figure(line: str) -> Figure:
    values = json.loads(line)
    spread = values.get("spread")
    return Figure(
        name=values["name"],
        value=values["value"],
        spread=tuple(spread) if spread else None,
        note=values.get("note", ""),
    )


# The parts.


def run_part(
    name: str,
    command: Sequence[str],
    out: Path,
    *,
    seconds: float,
    environment: Mapping[str, str],
    cwd: Path = CHECKOUT,
    on_line: Callable[[str], None] = lambda line: None,
) -> int | None:
    """Run a part and return its exit code; kill it and its children when its time is up, and return None.

    Its output goes to `NAME.out`, each line also to `on_line` as it comes, and its errors to `NAME.err`.
    """
    with (out / f"{name}.out").open("w") as kept, (out / f"{name}.err").open("wb") as stderr:
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
        )
        assert process.stdout is not None
        late = threading.Timer(max(seconds, 1.0), _kill, (process,))
        late.start()
        try:
            for line in process.stdout:
                kept.write(line)
                kept.flush()
                on_line(line)
            exit_code = process.wait()
        finally:
            was_late = not late.is_alive()
            late.cancel()
            _kill(process)  # as a rule nothing is left of it
            process.wait()
    print(f"{name}: " + ("stopped, its time is up" if was_late else f"exit code {exit_code}"), flush=True)
    return None if was_late else exit_code


def _kill(process: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def files_with_gpu_tests() -> list[str]:
    """Return the test files with GPU tests: the others may import packages that are not installed."""
    found = sorted((CHECKOUT / "tests").rglob("test_*.py"))
    return [str(path) for path in found if "mark.gpu" in path.read_text(encoding="utf-8")]


def tests_command(out: Path) -> list[str]:
    # Without the project's options: they ask for plugins.
    options = ["-o", "addopts=", "-p", "no:cacheprovider", "-q", f"--junitxml={out / 'tests.xml'}", "-m", "gpu"]
    return [sys.executable, "-m", "pytest", *options, *files_with_gpu_tests()]


def doctor_command(data_dir: Path) -> list[str]:
    return [*CLI, "doctor", "--data-dir", str(data_dir), "--json"]


def figures_command(part: str, known: Path) -> list[str]:
    return [sys.executable, str(FIGURES_SCRIPT), part, "--known", str(known)]


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


def doctor_figures(out: Path) -> Iterator[Figure]:
    """Yield the model of the GPU, and how many things do not work, with their names."""
    try:
        findings = json.loads((out / "doctor.out").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        findings = []
    gpu = next((each["text"] for each in findings if each["name"] == "cuda:0"), "")
    yield Figure(name="GPU", value=1 if gpu else None, note=gpu)
    bad = [f"{each['name']}: {each['text']}" for each in findings if each["state"] == "bad"]
    yield Figure(name="doctor, things that do not work", value=len(bad) if findings else None, note="; ".join(bad))


def tests_figures(out: Path) -> Iterator[Figure]:
    try:
        suites = list(ElementTree.parse(out / "tests.xml").getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        suites = []
    counts = {
        what: sum(int(suite.get(what, 0)) for suite in suites) for what in ("tests", "failures", "errors", "skipped")
    }
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    yield Figure(name="GPU tests passed", value=passed if suites else None)
    yield Figure(name="GPU tests failed", value=failed if suites else None)


def loops_figures(out: Path) -> Iterator[Figure]:
    ratios = {each["name"]: each["ratio"] for each in read_json(out / "loops.out").get("comparisons", [])}
    yield Figure(name="DataLoader loop takes longer, times", value=ratios.get("DataLoader, 0 workers"))
    yield Figure(name="plain CUDA graph takes longer, times", value=ratios.get("plain CUDA graph"))


def search_figures(out: Path, seconds: float) -> Iterator[Figure]:
    finished = read_json(out / "search.out").get("trials", {}).get("finished")
    took = seconds if finished is not None and finished >= TRIALS else None
    yield Figure(name="trials finished", value=finished)
    yield Figure(name=f"seconds for {TRIALS} trials", value=took)
    yield Figure(name="GPU busy from the first to the last step", value=busy_share(out / "utilisation.csv"))


def references_figures(out: Path) -> Iterator[Figure]:
    """Yield how far each system is from its published accuracy on the test set, in points."""
    for each in read_json(out / f"{REFERENCES}.out").get("references", []):
        if each["measured_on"] == "test":
            again = each["reproduced"]
            yield Figure(
                name=f"{each['name']}, points from its published accuracy",
                value=100 * abs(again["test_accuracy"] - each["accuracy"]) if again else None,
            )


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line, and check its paths before anything runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--only", choices=LIMITS)
    chosen = parser.parse_args(given)
    if not (chosen.data_dir / "KMNIST" / "raw").is_dir():
        parser.error(f"{chosen.data_dir} has no KMNIST/raw: name the folder that the images are in")
    chosen.data_dir, chosen.out_dir = chosen.data_dir.resolve(), chosen.out_dir.resolve()
    try:
        chosen.out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"{chosen.out_dir} cannot be made: {error}")
    return chosen


class Stretch:
    """One stretch of work, in `out`."""

    def __init__(self, data_dir: Path, out: Path, environment: Mapping[str, str]) -> None:
        self.data_dir, self.out, self.environment = data_dir, out, environment
        self.book = Book(out)
        self._ends_at = time.monotonic() + STRETCH_SECONDS

    def work(self, parts: Sequence[str]) -> None:
        """Run the parts that are not finished, as far as the time goes."""
        for name in parts:
            while name not in self.book.parts:
                left = self._ends_at - time.monotonic()
                if left < FEWEST_SECONDS:
                    return
                if not self._run(name, min(LIMITS[name], left) if len(parts) > 1 else left):
                    break

    def _run(self, name: str, seconds: float) -> bool:
        """Run a part; return whether another process is to measure the rest of it now."""
        began, out = time.monotonic(), self.out
        match name:
            case "doctor":
                exit_code = self._part(name, doctor_command(self.data_dir), seconds)
            case "matrix" | "paces":
                command = figures_command(name, self.book.file)
                exit_code = self._part(name, command, seconds, on_line=lambda line: self.book.add(_figure(line)))
            case "tests":
                exit_code = self._part(name, tests_command(out), seconds)
            case "search":
                with sampled_utilisation(out / "utilisation.csv"):
                    command = search_command(self.data_dir, out, seconds - SEARCH_STOPS_BEFORE)
                    exit_code = self._part(name, command, seconds, cwd=out)
            case "loops":
                exit_code = self._part(name, loops_command(), seconds)
            case _:
                exit_code = self._part(name, references_command(self.data_dir, out, out), seconds, cwd=out)
        took = time.monotonic() - began
        if name == "search":  # with the stretches before
            before = self.book.figures.get(SEARCHED)
            took += (before.value or 0.0) if before else 0.0
            self.book.add(Figure(name=SEARCHED, value=took))
        for figure in self._figures(name, took):
            self.book.add(figure)
        if exit_code == LOST and name == "matrix":
            return True
        # What was stopped is resumed by the next stretch: searches from their studies, the others from the start.
        if exit_code is not None and not (name == "search" and self.book.figures["trials finished"].value != TRIALS):
            self.book.end(name, exit_code, took)
        return False

    def _part(self, name: str, command: Sequence[str], seconds: float, **options: Any) -> int | None:
        return run_part(name, command, self.out, seconds=seconds, environment=self.environment, **options)

    def _figures(self, name: str, seconds: float) -> Iterator[Figure]:
        match name:
            case "doctor":
                return doctor_figures(self.out)
            case "tests":
                return tests_figures(self.out)
            case "search":
                return search_figures(self.out, seconds)
            case "loops":
                return loops_figures(self.out)
            case "references":
                return references_figures(self.out)
        return iter(())


def main() -> None:
    chosen = arguments()
    parts = list(LIMITS) if chosen.only is None else [chosen.only]
    with tempfile.TemporaryDirectory() as temporary:
        stretch = Stretch(chosen.data_dir, chosen.out_dir, environment_of(Path(temporary)))
        stretch.work(parts)
    book = stretch.book
    print("\n" + "\n".join(figure.line(book.gpu) for figure in book.figures.values()))
    if left := [name for name in parts if name not in book.parts]:
        print(f"left: {', '.join(left)}. To continue: the same command")
        sys.exit(2)
    targets = [figure.target(book.gpu) for figure in book.figures.values()]
    sys.exit(0 if all(target is None or target[1] for target in targets) else 1)


if __name__ == "__main__":
    main()
