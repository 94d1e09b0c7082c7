"""What a shell completes, asked as bash asks."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Invoke = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("one_thread")

#: The function that the page on the command line switches on, called as bash calls it at the Tab key.
TAB = """
eval "$(_KMNIST_SEARCH_COMPLETE=bash_source kmnist-search)"
COMP_WORDS=(kmnist-search "$@") COMP_CWORD=$#
compopt() { :; }
_kmnist_search_completion kmnist-search
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def tab(tmp_path: Path, any_storage_url: str) -> Callable[..., set[str]]:
    """What is offered after the words; the last one is begun."""
    bin_dir = Path(sys.executable).parent
    if shutil.which("kmnist-search", path=bin_dir) is None:
        pytest.skip("kmnist-search is not installed beside this Python")
    env = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}", "KMNIST_SEARCH_STORAGE": any_storage_url}

    def offered(*words: str) -> set[str]:
        command = ["bash", "-c", TAB, "bash", *words]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
        assert not done.stderr, done.stderr
        return set(done.stdout.split())

    return offered


def test_studies_trials_and_study_files_are_completed(
    tab: Callable[..., set[str]], invoke: Invoke, any_storage_url: str
) -> None:
    assert tab("status", "") == set()  # there is no database yet
    for name in ("first", "second"):
        ran = invoke("run", "tiny.toml", "--name", name, "--trials", 3, "--workers", 1, "--storage", any_storage_url)
        assert ran.exit_code == 0, ran.output
    assert tab("status", "") == {"first", "second"}
    assert tab("best", "f") == {"first"}
    assert tab("studies", "delete", "s") == {"second"}
    assert tab("trials", "second", "--number", "") == {"0", "1", "2"}
    assert tab("run", "kmnist-") == {"kmnist-cpu", "kmnist-hour", "kmnist-wide"}
    assert "trials" in tab("tr")
    assert tab("trials", "second", "--sort", "lear") == {"learning_rate"}
    assert tab("enqueue", "second", "lear") == {"learning_rate="}


def test_a_database_that_is_no_database_completes_nothing(tab: Callable[..., set[str]], tmp_path: Path) -> None:
    (tmp_path / "no.db").write_text("this is no database")
    assert tab("status", "--storage", "sqlite:///no.db", "") == set()
    assert tab("status", "--storage", "nonsense", "") == set()
