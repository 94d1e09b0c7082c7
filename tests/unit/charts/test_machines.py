"""Where trials were trained, as their attributes say it."""

from typing import Any

from kmnist_search.charts.machines import Machine, machines, versions
from tests.unit.charts.test_trials import trial


def _attempts(*places: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"host": host, "pid": pid} for host, pid in places]


def test_a_device_has_its_trials_and_the_processes_that_ended_them_the_busiest_first() -> None:
    trials = [
        trial(0, 0.5, device="CPU, threads: 1", attempts=_attempts(("laptop", 1))),
        trial(1, 0.5, device="NVIDIA H200", attempts=_attempts(("laptop", 1), ("box", 7))),
        trial(2, 0.5, device="NVIDIA H200", attempts=_attempts(("box", 8))),
        trial(3, 0.5, device="NVIDIA H200", attempts=_attempts(("box", 8))),
        trial(4, 0.5),
        trial(5, 0.5, device="NVIDIA H200"),
    ]
    assert machines(trials) == [
        Machine(host="box", device="NVIDIA H200", trials=3, processes=2),
        Machine(host="laptop", device="CPU, threads: 1", trials=1, processes=1),
    ]


def test_all_versions_of_a_package_are_told_in_the_order_of_their_first_use() -> None:
    used = [{"torch": "2.13.0", "optuna": "5.0.0"}, {"torch": "2.14.1", "optuna": "5.0.0"}, {"torch": "2.13.0"}]
    trials = [trial(n, 0.5, versions=each) for n, each in enumerate(used)]
    assert versions([*trials, trial(9, 0.5)]) == {"torch": ["2.13.0", "2.14.1"], "optuna": ["5.0.0"]}
