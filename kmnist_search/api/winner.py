"""The result of a retraining, as programs and notebooks use it."""

from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

from kmnist_search.evaluation.metrics import Metrics
from kmnist_search.saved_model.folder import load_model
from kmnist_search.saved_model.model import SavedModel
from kmnist_search.terminal.retraining import headline


@dataclass(frozen=True, eq=False, kw_only=True)
class Winner:
    """The winner of a study, retrained and tested.

    Attributes:
        folder: with the report, the figures and the models.
        metrics: all figures, as in `metrics.json`.
    """

    folder: Path
    metrics: Metrics

    @property
    def test_accuracy(self) -> float:
        """The mean test accuracy of the final models, a share from 0 to 1."""
        return self.metrics.test.mean_accuracy

    @property
    def val_accuracy(self) -> float | None:
        """The validation accuracy of the chosen configuration, a share from 0 to 1; by it the winner was chosen."""
        return self.metrics.test.val_accuracy

    @cached_property
    def model(self) -> SavedModel:
        """The model of the first final seed."""
        return load_model(self.folder / "model")

    @property
    def report(self) -> Path:
        """The report, a web page."""
        return self.folder / "report.html"

    def __repr__(self) -> str:
        return f"<Winner in {self.folder}: {headline(self.metrics)[0]}>"

    def _repr_html_(self) -> str:
        lines = "<br>".join(escape(line) for line in headline(self.metrics))
        return f"<p>{lines}<br>report: <code>{escape(str(self.report))}</code></p>"
