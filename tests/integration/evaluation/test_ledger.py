"""The ledger of a study: the same on every storage, first come first kept, and carried along with the study."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kmnist_search.archive import studies as archive
from kmnist_search.database.storage import open_storage
from kmnist_search.errors import StudyNotFoundError
from kmnist_search.evaluation.ledger import Ledger
from kmnist_search.evaluation.metrics import Opening, Recipe
from kmnist_search.study.opening import find_study, open_study
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.parser import load

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def study(any_storage_url: str, tiny_study: Path) -> SearchStudy:
    return open_study(open_storage(any_storage_url, create=True), load(tiny_study))


def _recipe(*, trial: int, seeds: tuple[int, ...], at: datetime) -> Recipe:
    return Recipe(digest="a" * 12, trial=trial, config={}, config_digest="b" * 12, epochs=3, seeds=seeds, frozen_at=at)


def _opening(seed: int, *, at: datetime, accuracy: float | None = None) -> Opening:
    return Opening(
        opened_at=at,
        recipe_digest="a" * 12,
        seed=seed,
        weights_sha256=f"{seed:0<64}",
        correct=None if accuracy is None else round(accuracy * 100),
        accuracy=accuracy,
        loss=accuracy,
    )


def test_a_recipe_stays_as_it_was_first_frozen_but_for_its_seeds(study: SearchStudy) -> None:
    ledger = Ledger(study)
    first = ledger.freeze(_recipe(trial=1, seeds=(5,), at=NOON))
    later = ledger.freeze(_recipe(trial=2, seeds=(5, 6), at=NOON + timedelta(hours=1)))
    assert (later.trial, later.frozen_at, later.seeds) == (first.trial, first.frozen_at, (5, 6))
    assert Ledger(study).freeze(_recipe(trial=3, seeds=(5, 6), at=NOON)) == later


def test_looks_are_listed_by_time_and_get_their_result_in_place(study: SearchStudy) -> None:
    ledger = Ledger(study)
    ledger.note_opening(_opening(2, at=NOON + timedelta(minutes=1)))
    ledger.note_opening(_opening(1, at=NOON))
    ledger.note_opening(_opening(2, at=NOON + timedelta(minutes=1), accuracy=0.25))
    assert [(opening.seed, opening.accuracy) for opening in ledger.openings()] == [(1, None), (2, 0.25)]
    found = ledger.opening("a" * 12, 2, f"{2:0<64}")
    assert found is not None
    assert found.accuracy == 0.25
    assert ledger.opening("a" * 12, 2, f"{22:0<64}") is None


def test_a_study_takes_its_ledger_along(study: SearchStudy, tmp_path: Path) -> None:
    Ledger(study).note_opening(_opening(1, at=NOON, accuracy=0.5))
    archive.export_study(study.storage, study.name, tmp_path / "study.jsonl")
    elsewhere = open_storage(f"sqlite:///{tmp_path / 'elsewhere.db'}", create=True)
    archive.import_study(elsewhere, tmp_path / "study.jsonl")
    assert Ledger(find_study(elsewhere, None)).openings() == Ledger(study).openings()


def test_nothing_is_noted_for_a_study_that_was_deleted(study: SearchStudy) -> None:
    ledger = Ledger(study)
    archive.delete_study(study.storage, study.name)
    with pytest.raises(StudyNotFoundError):
        ledger.note_opening(_opening(1, at=NOON))
