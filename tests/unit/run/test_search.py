"""Tests of run/search.py that need no search."""

import subprocess
import sys


def test_a_worker_starts_without_importing_scikit_learn_and_scipy() -> None:
    """They take a quarter of its start, and only the importances in the dashboard's note and plots need them."""
    code = "import sys, kmnist_search.run.search; print(sorted({'scipy', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
