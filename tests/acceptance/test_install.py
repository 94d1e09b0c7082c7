"""The wheel in a fresh virtual environment, run from an empty folder."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from kmnist_search.study_file.builtin import builtin_studies
from tests.support.command import CHECKOUT, environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", folder, CHECKOUT], check=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_studies_and_templates_and_nothing_of_the_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    studies = {name for name in names if name.startswith("kmnist_search/studies/")}
    assert studies == {f"kmnist_search/studies/{name}.toml" for name in builtin_studies()}
    assert "kmnist_search/report/templates/model_card.md.jinja" in names
    assert not [name for name in names if "tests" in name or "benchmarks" in name]


@pytest.mark.parametrize(
    ("folder", "file"), [("templates", "page.html"), ("fonts", "hiragana.woff2"), ("fonts", "OFL.txt")]
)
def test_the_wheel_carries_the_templates_and_the_font_of_the_report(wheel: Path, folder: str, file: str) -> None:
    folder = f"kmnist_search/report/{folder}"
    carried = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(folder)}
    assert carried == {f"{folder}/{path.name}" for path in (CHECKOUT / folder).iterdir()}
    assert f"{folder}/{file}" in carried


def test_installed_from_the_wheel_it_runs_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run([*pip, "install", "-q", "--no-deps", wheel], check=True)
    # The dependencies, gigabytes of them, are those of the environment the tests run in.
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    (Path(site.stdout.strip()) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    alone = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    ran = subprocess.run(
        [python.with_name("kmnist-search"), "run", "quickstart", "--trials", "2", "--epochs", "2"],
        cwd=empty,
        capture_output=True,
        text=True,
        timeout=240,
        env=alone,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Done: 2 of 2 trials are finished." in ran.stdout
    assert (empty / "kmnist-search.db").exists()
    subprocess.run([python.with_name("kmnist-search"), "report"], cwd=empty, check=True, env=environment())
    assert "plotly.js v" in (empty / "quickstart-report.html").read_text()
    where = [str(python), "-c", "import kmnist_search; print(kmnist_search.__file__)"]
    imported = subprocess.run(where, cwd=empty, check=True, capture_output=True, text=True, env=alone)
    assert imported.stdout.startswith(str(tmp_path))
