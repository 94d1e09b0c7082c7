"""The ledger of a study: its reruns, frozen recipes, final trainings, and every look at the test set.

Every entry is a user attribute of the study, so copies and exports contain it and optuna-dashboard shows it.
An entry is written before the next step begins, so an interrupted retraining resumes after the last.
"""

import json
from typing import TypeVar

from sqlalchemy import select

from kmnist_search.database.errors import when_it_answers
from kmnist_search.database.tables import put, study_user_attributes
from kmnist_search.evaluation.metrics import Figures, FinalTraining, Opening, Recipe, Rerun
from kmnist_search.study.study import SearchStudy

#: How long the database may be away between two trainings.
RETRY_SECONDS = 600.0

Entry = TypeVar("Entry", bound=Figures)


class Ledger:
    """The entries of one study. Each call is a transaction, retried while the database is away."""

    def __init__(self, study: SearchStudy) -> None:
        self.study = study

    def rerun(self, config_digest: str, seed: int) -> Rerun | None:
        """Return the rerun of a candidate with a fresh seed, if it was done."""
        return self._entry(f"rerun:{config_digest}:{seed}", Rerun)

    def note_rerun(self, config_digest: str, rerun: Rerun) -> None:
        self._write(f"rerun:{config_digest}:{rerun.seed}", rerun)

    def freeze(self, recipe: Recipe) -> Recipe:
        """Record a recipe before any model of it sees the test set; return the recipe as first frozen.

        Only the seeds may have changed since: more models of the same recipe.
        """
        before = self._entry(f"recipe:{recipe.digest}", Recipe)
        if before is not None:
            recipe = recipe.model_copy(update={"frozen_at": before.frozen_at, "trial": before.trial})
        if recipe != before:
            self._write(f"recipe:{recipe.digest}", recipe)
        return recipe

    def final(self, recipe_digest: str, seed: int) -> FinalTraining | None:
        """Return a final training of a recipe, if it was done."""
        return self._entry(f"final:{recipe_digest}:{seed}", FinalTraining)

    def note_final(self, recipe_digest: str, training: FinalTraining) -> None:
        self._write(f"final:{recipe_digest}:{training.seed}", training)

    def opening(self, recipe_digest: str, seed: int, weights_sha256: str) -> Opening | None:
        """Return this model's look at the test set, if it had one; the look may have been interrupted."""
        return self._entry(_opening_key(recipe_digest, seed, weights_sha256), Opening)

    def result(self, recipe_digest: str, seed: int, weights_sha256: str) -> Opening | None:
        """Return this model's look at the test set, if it had one that was not interrupted."""
        opening = self.opening(recipe_digest, seed, weights_sha256)
        return None if opening is None or opening.accuracy is None else opening

    def note_opening(self, opening: Opening) -> None:
        """Record a look: first before the test set is opened, then again with its result."""
        self._write(_opening_key(opening.recipe_digest, opening.seed, opening.weights_sha256), opening)

    def openings(self) -> list[Opening]:
        """Return every look at the test set, earliest first."""
        found = [Opening.model_validate_json(text) for text in self._texts("opening:").values()]
        return sorted(found, key=lambda opening: opening.opened_at)

    def _entry(self, key: str, kind: type[Entry]) -> Entry | None:
        text = self._texts(key).get(key)
        return None if text is None else kind.model_validate_json(text)

    def _texts(self, prefix: str) -> dict[str, str]:
        table = study_user_attributes
        found = select(table.c.key, table.c.value_json).where(
            table.c.study_id == self.study.queue.study_id, table.c.key.startswith(prefix, autoescape=True)
        )

        def read() -> dict[str, str]:
            with self.study.storage.reading() as connection:
                return {row.key: row.value_json for row in connection.execute(found)}

        return when_it_answers(RETRY_SECONDS)(read)

    def _write(self, key: str, entry: Figures) -> None:
        # As optuna writes it: JSON with spaces, which it reads back and compares.
        text = json.dumps(entry.model_dump(mode="json"))
        row = {"study_id": self.study.queue.study_id, "key": key, "value_json": text}

        def write() -> None:
            with self.study.storage.writing() as connection:
                self.study.queue.lock(connection)
                put(connection, study_user_attributes, [row], unique=("study_id", "key"))

        when_it_answers(RETRY_SECONDS)(write)


def _opening_key(recipe_digest: str, seed: int, weights_sha256: str) -> str:
    return f"opening:{recipe_digest}:{seed}:{weights_sha256[:12]}"
