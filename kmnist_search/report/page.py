"""The report as one web page that works offline."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from optuna.study import StudyDirection

from kmnist_search.charts import search_charts, trials, work_charts
from kmnist_search.charts.chart import Chart
from kmnist_search.charts.importance import importances
from kmnist_search.charts.judged import JudgedImage, most_confidently_right, most_confidently_wrong
from kmnist_search.charts.trials import FailureReason, PruningSavings, Ranked
from kmnist_search.errors import ReportError
from kmnist_search.host.files import whole_file
from kmnist_search.queue.queue import Counts
from kmnist_search.report import model_charts, parallel_chart
from kmnist_search.report.evidence import Evidence
from kmnist_search.report.templating import page
from kmnist_search.study.study import SearchStudy

NUM_TOP = 10
NUM_WRONG = 40


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchHalf:
    """The values that the page shows about the search."""

    name: str
    metric: str
    counts: Counts
    clock: str
    seconds: float
    hyperparameters: Sequence[str]
    top: Sequence[Ranked]
    failures: Sequence[FailureReason]
    savings: PruningSavings
    best_by_trials: Chart
    best_by_seconds: Chart
    importance: Chart
    slices: Sequence[Chart]
    parallel: Chart
    curves: Chart
    timeline: Chart


@dataclass(frozen=True, eq=False, kw_only=True)
class ModelHalf:
    """The values that the page shows about the final models, besides their figures."""

    evidence: Evidence
    wrong: Sequence[JudgedImage]
    right: Sequence[JudgedImage]
    reruns: Chart
    loss: Chart
    accuracy: Chart
    calibration: Chart


def search_report(study: SearchStudy) -> str:
    """Return a page about the search in its present state.

    Raises:
        ReportError: the study has no running or finished trial.
    """
    return _page(_search_half(study), None)


def full_report(study: SearchStudy, evidence: Evidence) -> str:
    """Return a page about the final models and the search they come from.

    Raises:
        ReportError: the study has no running or finished trial.
    """
    return _page(_search_half(study), _model_half(evidence))


def write(page: str, file: Path) -> None:
    """Write a report to `file`, completely or not at all.

    Raises:
        ReportError: it cannot be written; an old file stays unchanged.
    """
    with whole_file(file, error=ReportError) as part:
        part.write_text(page, encoding="utf-8")


def _page(search: SearchHalf, model: ModelHalf | None) -> str:
    return page("page.html", search=search, model=model)


def _search_half(study: SearchStudy) -> SearchHalf:
    counts, found = study.counts(), trials.read(study)
    if not found:
        raise ReportError(
            f"study {study.name!r} has no trial at work or finished, so there is nothing to report; {counts.waiting} "
            f"wait. See: kmnist-search status {study.name}"
        )
    metric, maximize = study.metric, study.direction == StudyDirection.MAXIMIZE
    history, clock = trials.history(found, study.direction), trials.clock_name(found)
    ranked = study.ranked(trials.complete(found))
    return SearchHalf(
        name=study.name,
        metric=metric,
        counts=counts,
        clock=clock,
        seconds=float(history.seconds[-1]) if len(history.seconds) else 0.0,
        hyperparameters=list(trials.searched(found)),
        top=trials.top(ranked, NUM_TOP),
        failures=trials.failures(found),
        savings=trials.saved(found, study.epochs),
        best_by_trials=search_charts.best_by_trials(history, metric, maximize=maximize),
        best_by_seconds=search_charts.best_by_seconds(history, metric, maximize=maximize, clock=clock),
        importance=search_charts.importance(importances(ranked, study.direction)),
        slices=search_charts.slices(found, study.metric, maximize=maximize),
        parallel=parallel_chart.parallel(found, metric, maximize=maximize),
        curves=work_charts.learning_curves(found, ranked[0] if ranked else None, metric, maximize=maximize),
        timeline=work_charts.timeline(trials.attempts(found, datetime.now(UTC))),
    )


def _model_half(evidence: Evidence) -> ModelHalf:
    metrics = evidence.metrics
    return ModelHalf(
        evidence=evidence,
        wrong=most_confidently_wrong(evidence.test, NUM_WRONG),
        right=most_confidently_right(evidence.test),
        reruns=model_charts.reruns(metrics.candidates),
        loss=model_charts.loss_curves(metrics),
        accuracy=model_charts.accuracy_curves(metrics),
        calibration=model_charts.calibration(metrics.test.kept.calibration, metrics.test.kept.calibration_error),
    )
