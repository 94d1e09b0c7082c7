"""The report of a study and its final models, as one web page that works offline and as Markdown."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmnist_search.charts import trials
from kmnist_search.charts.predictions import Predictions
from kmnist_search.errors import ReportError
from kmnist_search.evaluation.metrics import Metrics
from kmnist_search.report import model_charts
from kmnist_search.report.search_charts import SearchCharts
from kmnist_search.report.searched import searched
from kmnist_search.report.templating import environment, page
from kmnist_search.study.halving import rung_of
from kmnist_search.study.ranking import duplicates
from kmnist_search.study.study import SearchStudy

NUM_TOP = 10
NUM_WRONG = 40


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """What the report shows about the final models. S samples of each class; pictures are 28 x 28.

    Attributes:
        metrics: the figures.
        test: the test images, with the kept model's predictions.
        samples: (10, S, 28, 28), training images of each class.
        class_counts: (10,), number of training images of each class.
    """

    metrics: Metrics
    test: Predictions
    samples: NDArray[np.uint8]
    class_counts: NDArray[np.int64]


def study_report(study: SearchStudy, evidence: Evidence | None = None) -> str:
    """Return a page about the search in its present state, and about the final models if there is evidence of them.

    Raises:
        ReportError: the study has no running or finished trial.
    """
    return page("page.html", search=_search_half(study), model=None if evidence is None else _model_half(evidence))


def markdown_report(metrics: Metrics) -> str:
    """Return the headline and the tables about the final models."""
    return environment("md").get_template("report.md").render(metrics=metrics)


def _search_half(study: SearchStudy) -> dict[str, Any]:
    """Return the values that the page shows about the search."""
    counts, found = study.counts(), trials.read(study)
    if not found:
        raise ReportError(
            f"study {study.name!r} has no running or finished trial, so there is nothing to report; {counts.waiting} "
            f"are waiting. See: kmnist-search status {study.name}"
        )
    charts = SearchCharts(study, found)
    return {
        "name": study.name,
        "metric": study.metric,
        "counts": counts,
        "paused": sum(rung_of(trial) is not None for trial in found),
        "clock": charts.clock,
        "seconds": float(charts.past.seconds[-1]) if len(charts.past.seconds) else 0.0,
        "hyperparameters": list(trials.searched(found)),
        "top": charts.ranked[:NUM_TOP],
        "same_as": duplicates(charts.ranked[:NUM_TOP]),
        "searched": searched(study, found),
        "failures": trials.failures(found),
        "savings": trials.saved(found, study.epochs),
        "best_by_trials": charts.history(),
        "best_by_seconds": charts.seconds(),
        "size": charts.size(),
        "importance": charts.importance(),
        "slices": charts.slices(),
        "parallel": charts.parallel(),
        "curves": charts.curves(),
        "timeline": charts.timeline(),
    }


def _model_half(evidence: Evidence) -> dict[str, Any]:
    """Return the values that the page shows about the final models."""
    metrics, kept = evidence.metrics, evidence.metrics.test.kept
    return {
        "evidence": evidence,
        "wrong": evidence.test.most_confidently_wrong(NUM_WRONG),
        "right": evidence.test.most_confidently_right(),
        "reruns": model_charts.reruns(metrics.candidates),
        "loss": model_charts.final_curves(metrics, "loss"),
        "accuracy": model_charts.final_curves(metrics, "accuracy"),
        "calibration": model_charts.calibration(kept.calibration, kept.calibration_error),
    }
