"""Tests of cli/options.py: what is set before torch is imported."""

import os

import pytest

from kmnist_search.cli.options import set_up_runtimes


@pytest.mark.parametrize(("before", "after"), [({}, "32"), ({"CUDA_DEVICE_MAX_CONNECTIONS": "8"}, "8")])
def test_each_of_many_trainings_on_a_gpu_gets_a_queue_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, before: dict[str, str], after: str
) -> None:
    monkeypatch.setattr(os, "environ", dict(before))
    set_up_runtimes()
    assert os.environ["CUDA_DEVICE_MAX_CONNECTIONS"] == after
