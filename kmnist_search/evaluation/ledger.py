"""The ledger of a study: its frozen recipes, and every look at the test set.

Every entry is a user attribute of the study, so copies and exports contain it and optuna-dashboard shows it.
An entry is written before the next step begins, so no look is lost and none is counted twice.
"""

import json
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.engine import Connection

from kmnist_search.database.errors import when_it_answers
from kmnist_search.database.tables import put, study_user_attributes
from kmnist_search.evaluation.metrics import Figures, Opening, Recipe
from kmnist_search.study.study import SearchStudy

#: How long the database may be away between two trainings.
RETRY_SECONDS = 600.0

Entry = TypeVar("Entry", bound=Figures)


class Ledger:
    """The entries of one study. Each call is a transaction, retried while the database is away."""

    def __init__(self, study: SearchStudy) -> None:
        self.study = study

    def freeze(self, recipe: Recipe) -> Recipe:
        """Record a recipe before any model of it sees the test set; return the recipe as first frozen.

        Only the seeds may have changed since: more models of the same recipe.
        """
        key = f"recipe:{recipe.digest}"

        def freeze() -> Recipe:
            with self.study.storage.writing() as connection:
                self.study.queue.lock(connection)
                text = self._read(connection, key).get(key)
                before = None if text is None else Recipe.model_validate_json(text)
                first = {} if before is None else {"frozen_at": before.frozen_at, "trial": before.trial}
                frozen = recipe.model_copy(update=first)
                if frozen != before:
                    self._put(connection, key, frozen)
            return frozen

        return when_it_answers(RETRY_SECONDS)(freeze)

    def recipes(self) -> list[Recipe]:
        """Return the frozen recipes, earliest first."""
        found = [Recipe.model_validate_json(text) for text in self._texts("recipe:").values()]
        return sorted(found, key=lambda recipe: recipe.frozen_at)

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
        def read() -> dict[str, str]:
            with self.study.storage.reading() as connection:
                return self._read(connection, prefix)

        return when_it_answers(RETRY_SECONDS)(read)

    def _write(self, key: str, entry: Figures) -> None:
        def write() -> None:
            with self.study.storage.writing() as connection:
                self.study.queue.lock(connection)
                self._put(connection, key, entry)

        when_it_answers(RETRY_SECONDS)(write)

    def _read(self, connection: Connection, prefix: str) -> dict[str, str]:
        table = study_user_attributes
        found = select(table.c.key, table.c.value_json).where(
            table.c.study_id == self.study.queue.study_id, table.c.key.startswith(prefix, autoescape=True)
        )
        return {row.key: row.value_json for row in connection.execute(found)}

    def _put(self, connection: Connection, key: str, entry: Figures) -> None:
        # As optuna writes it: JSON with spaces, which it reads back and compares.
        text = json.dumps(entry.model_dump(mode="json"))
        row = {"study_id": self.study.queue.study_id, "key": key, "value_json": text}
        put(connection, study_user_attributes, [row], unique=("study_id", "key"))


def _opening_key(recipe_digest: str, seed: int, weights_sha256: str) -> str:
    return f"opening:{recipe_digest}:{seed}:{weights_sha256[:12]}"
