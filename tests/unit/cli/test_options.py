"""Tests of cli/options.py: what is set before torch is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kmnist_search.host.runtimes import set_up_runtimes
from tests.support.command import environment


@pytest.mark.parametrize(("before", "after"), [({}, "32"), ({"CUDA_DEVICE_MAX_CONNECTIONS": "8"}, "8")])
def test_each_of_many_trainings_on_a_gpu_gets_a_queue_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, before: dict[str, str], after: str
) -> None:
    monkeypatch.setattr(os, "environ", dict(before))
    set_up_runtimes()
    assert os.environ["CUDA_DEVICE_MAX_CONNECTIONS"] == after


#: Types a command, and prints what OpenMP would read when torch is imported.
UNTIL_TORCH = """
import os, sys

class UntilTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            os.write(1, str(os.environ.get("OMP_WAIT_POLICY")).encode())
            os._exit(0)

sys.meta_path.insert(0, UntilTorch())
sys.argv = ["kmnist-search", *sys.argv[1:]]
from kmnist_search.cli.main import main
main()
"""


@pytest.mark.parametrize("command", [("run", "quickstart"), ("worker",), ("bench",), ("doctor",), ("references",)])
def test_what_openmp_reads_is_set_before_torch_is_imported(tmp_path: Path, command: tuple[str, ...]) -> None:
    told = subprocess.run(
        [sys.executable, "-c", UNTIL_TORCH, *command], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert told.stdout == "PASSIVE", told.stderr
