"""The attributes of a study that hold its note and plots; only changed ones are written.

optuna-dashboard splits notes and plots into pieces and writes each in its own transaction. Here it writes into a study
in memory, and one statement copies the changed pieces to the database.
"""

import json
from collections.abc import Callable, Mapping

import optuna
from optuna.storages import InMemoryStorage
from sqlalchemy import select
from sqlalchemy.engine import Connection

from kmnist_search.charts.plot import Plot
from kmnist_search.database.tables import put, study_system_attributes
from kmnist_search.optuna_internals import NOTE_KEY_PREFIX, PLOT_KEY_PREFIX, study_id_of


class DashboardAttributes:
    """The note and the plots of one study, and which of their pieces the database has."""

    def __init__(self, study_id: int) -> None:
        self.study_id = study_id
        self._storage = InMemoryStorage()
        self._study = optuna.create_study(storage=self._storage)
        self._written: dict[str, str] = {}

    def read_plots(self, connection: Connection) -> None:
        """Read the plots in the database; other workers may have written them."""
        self._read(connection, PLOT_KEY_PREFIX)

    def set_plots(self, plots: Mapping[str, Plot]) -> None:
        """Set plots, to be written with the next note."""
        from optuna_dashboard import save_plotly_graph_object

        for name, plot in plots.items():
            save_plotly_graph_object(self._study, plot, graph_object_id=name)

    def write(self, connection: Connection, note: Callable[[str], str]) -> int:
        """Write everything that changed and the note, made from the previous one; return the number of rows written."""
        from optuna_dashboard import get_note, save_note

        self._read(connection, NOTE_KEY_PREFIX)  # somebody may have just edited it
        before = get_note(self._study)
        if (text := note(before)) != before:
            save_note(self._study, text)
        changed = {key: text for key, text in self._pieces().items() if self._written.get(key) != text}
        rows = [{"study_id": self.study_id, "key": key, "value_json": text} for key, text in changed.items()]
        put(connection, study_system_attributes, rows, unique=("study_id", "key"))
        self._written.update(changed)
        return len(rows)

    def _read(self, connection: Connection, prefix: str) -> None:
        table = study_system_attributes
        of_study = (table.c.study_id == self.study_id) & table.c.key.startswith(prefix, autoescape=True)
        for key, text in connection.execute(select(table.c.key, table.c.value_json).where(of_study)):
            self._written[key] = text
            self._storage.set_study_system_attr(study_id_of(self._study), key, json.loads(text))

    def _pieces(self) -> dict[str, str]:
        attributes = self._storage.get_study_system_attrs(study_id_of(self._study))
        return {key: json.dumps(value) for key, value in attributes.items()}
