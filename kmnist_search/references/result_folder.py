"""The result folder of the comparison: a table as JSON and Markdown, and a page with pictures.

references.json  references.md  references.html
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime

from kmnist_search.charts.predictions import Predictions
from kmnist_search.data.catalog import CLASS_NAMES
from kmnist_search.data.search_data import load_training_set
from kmnist_search.errors import ResultFolderError
from kmnist_search.evaluation.ledger import Ledger
from kmnist_search.evaluation.metrics import Figures, Opening, Reference, Reproduction
from kmnist_search.evaluation.testing import Examination
from kmnist_search.host import files
from kmnist_search.references.results import TestedSystem, system_of, with_reproductions
from kmnist_search.report.model_charts import curves
from kmnist_search.report.templating import environment, page
from kmnist_search.saved_model.packed import PackedModel
from kmnist_search.study_file.schema import Which

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


def compare(
    references: Sequence[Reference], ledger: Ledger, tested: Sequence[TestedSystem], *, command: str
) -> ReferenceTable:
    """Return the figures of the tested references."""
    return ReferenceTable(
        made_at=datetime.now(UTC),
        study=ledger.study.name,
        references=with_reproductions(references, tested),
        ledger=tuple(ledger.openings()),
        reproduction=Reproduction.here(command, device=tested[0].trained.device),
    )


def check_place(folder: Path) -> None:
    """Raise ResultFolderError if `folder` cannot be made, or holds anything but an old comparison."""
    files.check_result_folder(folder, is_ours=ReferenceTable.read(folder / TABLE_FILE) is not None, force=True)


def write(
    folder: Path,
    comparison: ReferenceTable,
    examination: Examination,
    tested: Sequence[TestedSystem],
    models: Mapping[int, Mapping[Which, PackedModel]],
) -> None:
    """Write table and page to `folder`, replacing an old comparison.

    Raises:
        ResultFolderError: it cannot be written; an old comparison stays unchanged.
    """
    retrained = [reference for reference in comparison.references if reference.reproduced]
    datasets = dict.fromkeys(reference.dataset for reference in retrained)
    samples = {
        dataset: load_training_set(dataset, examination.data_dir).samples(SAMPLES_A_CLASS) for dataset in datasets
    }
    names = {dataset: [str(name) for name in CLASS_NAMES[dataset]] for dataset in samples}
    sections = []
    for reference in retrained:
        its_tests = [each for each in tested if system_of(each.trained) == reference.name]
        model = models[its_tests[0].trained.number]["last"]
        sections.append(_page_section(reference, its_tests, _predictions(model, examination)))
    html = page("references.html", result=comparison, systems=sections, samples=samples, names=names)
    markdown = environment("md").get_template("references.md").render(result=comparison)
    with files.whole_folder(folder, replace=True, error=ResultFolderError) as new:
        comparison.write(new / TABLE_FILE)
        (new / "references.md").write_text(markdown, encoding="utf-8")
        (new / "references.html").write_text(html, encoding="utf-8")


def _predictions(packed: PackedModel, examination: Examination) -> Predictions:
    test_set = examination.test_set(packed.info.dataset)
    return Predictions(
        probabilities=packed.unpacked().probabilities(test_set.images),
        images=test_set.images.numpy(),
        labels=test_set.labels.numpy(),
    )


def _page_section(reference: Reference, tested: Sequence[TestedSystem], predictions: Predictions) -> dict[str, Any]:
    """Return the page's values for one system: its curves, and the test predictions of its first seed's model."""
    epochs = {each.trained.seed: each.trained.epochs for each in tested}
    return {
        "reference": reference,
        "loss": curves("loss", epochs, epochs, name=f"{reference.name}-loss"),
        "accuracy": curves("accuracy", epochs, epochs, name=f"{reference.name}-accuracy"),
        "right": predictions.most_confidently_right(),
        "wrong": predictions.most_confidently_wrong(NUM_WRONG),
    }
