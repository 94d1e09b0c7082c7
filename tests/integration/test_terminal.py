"""The live view of a run, as a terminal shows it."""

from pathlib import Path

import pytest
from rich.console import Console

from kmnist_search.events import DatabaseAway, DatabaseBack, Stopping
from kmnist_search.search import prepare
from kmnist_search.signals import StopSignals
from kmnist_search.terminal import RunView


@pytest.fixture
def view(tiny_study: Path, storage_url: str, tmp_path: Path) -> RunView:
    search = prepare(
        tiny_study, overrides=[], trials=2, target=None, storage_url=storage_url, data_dir=tmp_path, device="cpu"
    )
    worker, _ = search.work(StopSignals(), seconds=None)
    return RunView(search, worker.courier)


def _shown(view: RunView) -> str:
    console = Console(width=100)
    with console.capture() as shown:
        console.print(view)
    return shown.get()


def test_a_database_that_is_away_is_told_until_it_is_back(view: RunView) -> None:
    assert "database" not in _shown(view)
    view.take(DatabaseAway(reason="Connection refused"))
    assert "database  the database is away, trying again: Connection refused" in _shown(view)
    view.take(DatabaseBack(seconds=3.0))
    assert "database" not in _shown(view)


def test_a_stop_that_waits_for_the_database_is_told(view: RunView) -> None:
    view.take(Stopping(seconds=4.0))
    assert "now     stopping, waiting at most 4 s for the database" in _shown(view)
