"""The result folder of the comparison: a table as JSON and Markdown, and a page with pictures.

references.json  references.md  references.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime

from kmnist_search.charts.chart import Chart
from kmnist_search.charts.predictions import PredictedImage, Predictions
from kmnist_search.data.catalog import CLASS_NAMES
from kmnist_search.data.search_data import load_training_set
from kmnist_search.errors import ResultFolderError
from kmnist_search.evaluation.metrics import Figures, Opening, Reference, Reproduction
from kmnist_search.host import files
from kmnist_search.references.results import TestedSystem, TrainedSystem, with_reproductions
from kmnist_search.references.testing import Test
from kmnist_search.report.model_charts import ACCURACY, LOSS, Curve, Lines, curves
from kmnist_search.report.templating import environment, page

TABLE_FILE = "references.json"
SAMPLES_A_CLASS, NUM_WRONG = 10, 20


class ReferenceTable(Figures):
    """The content of `references.json`."""

    schema_version: Literal[1] = 1
    made_at: AwareDatetime
    study: str
    references: tuple[Reference, ...]
    ledger: tuple[Opening, ...]
    reproduction: Reproduction


@dataclass(frozen=True, eq=False, kw_only=True)
class Shown:
    """The page's data on one system: its curves, and the test predictions of its first seed's model."""

    reference: Reference
    loss: Chart
    accuracy: Chart
    right: Sequence[PredictedImage]
    wrong: Sequence[PredictedImage]


def compare(
    references: Sequence[Reference], test: Test, those: Sequence[TestedSystem], *, command: str
) -> ReferenceTable:
    """Return the figures of the tested references."""
    return ReferenceTable(
        made_at=datetime.now(UTC),
        study=test.ledger.study.name,
        references=with_reproductions(references, those),
        ledger=tuple(test.ledger.openings()),
        reproduction=Reproduction.here(command, device=those[0].trained.device),
    )


def check_place(folder: Path) -> None:
    """Raise ResultFolderError if `folder` cannot be made, or holds anything but an old comparison."""
    files.check_result_folder(folder, is_ours=ReferenceTable.read(folder / TABLE_FILE) is not None, force=True)


def write(folder: Path, comparison: ReferenceTable, test: Test, data_dir: Path) -> None:
    """Write table and page to `folder`, replacing an old comparison.

    Raises:
        ResultFolderError: it cannot be written; an old comparison stays unchanged.
    """
    shown = [_shown(reference, test) for reference in comparison.references if reference.reproduced]
    samples = _samples([each.reference.dataset for each in shown], data_dir)
    names = {dataset: [str(name) for name in CLASS_NAMES[dataset]] for dataset in samples}
    html = page("references.html", result=comparison, shown=shown, samples=samples, names=names)
    markdown = environment("md").get_template("references.md").render(result=comparison)
    with files.whole_folder(folder, replace=True, error=ResultFolderError) as new:
        comparison.write(new / TABLE_FILE)
        (new / "references.md").write_text(markdown, encoding="utf-8")
        (new / "references.html").write_text(html, encoding="utf-8")


def _samples(datasets: Sequence[str], data_dir: Path) -> Mapping[str, NDArray[np.uint8]]:
    sets = {dataset: load_training_set(dataset, data_dir) for dataset in dict.fromkeys(datasets)}
    return {dataset: images.samples(SAMPLES_A_CLASS) for dataset, images in sets.items()}


def _shown(reference: Reference, test: Test) -> Shown:
    those = [each for each in test.those if each.system == reference.name]
    predictions = _predictions(test, those[0])
    return Shown(
        reference=reference,
        loss=_curves(LOSS, those),
        accuracy=_curves(ACCURACY, those),
        right=predictions.most_confidently_right(),
        wrong=predictions.most_confidently_wrong(NUM_WRONG),
    )


def _predictions(test: Test, each: TrainedSystem) -> Predictions:
    model = test.kept[each.number]
    test_set = test.test_sets[model.info.dataset]
    return Predictions(
        probabilities=model.probabilities(test_set.images),
        images=test_set.images.numpy(),
        labels=test_set.labels.numpy(),
    )


def _curves(curve: Curve, those: Sequence[TrainedSystem]) -> Chart:
    trainings = [(each.seed, each.epochs) for each in those]
    return curves(
        curve,
        Lines(label="training images", trainings=trainings),
        Lines(label="validation images", trainings=trainings),
        name=f"{those[0].system}-{curve.title.lower()}",
    )
