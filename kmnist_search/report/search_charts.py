"""The charts of a search that the report shows, each drawn when it is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from kmnist_search.charts import cost_charts, search_charts, trials, work_charts
from kmnist_search.charts.chart import Chart
from kmnist_search.charts.importance import importances
from kmnist_search.report.parallel_chart import parallel
from kmnist_search.study.study import SearchStudy


@dataclass(frozen=True, eq=False)
class SearchCharts:
    """The charts of a study.

    Attributes:
        study: the study.
        found: its running and finished trials, with all their details.
    """

    study: SearchStudy
    found: Sequence[FrozenTrial]

    @property
    def maximizes(self) -> bool:
        """Whether the metric is an accuracy."""
        return self.study.direction == StudyDirection.MAXIMIZE

    @cached_property
    def past(self) -> trials.SearchHistory:
        """The finished trials, ordered by their ends."""
        return trials.history(self.found, self.study.direction)

    @cached_property
    def ranked(self) -> list[FrozenTrial]:
        """The complete trials, best first."""
        return self.study.ranked(trials.complete(self.found))

    @property
    def clock(self) -> str:
        """The name of the clock of these trials."""
        return trials.clock_name(self.found)

    def history(self) -> Chart:
        """Return the best value so far against the number of finished trials."""
        return search_charts.best_by_trials(self.past, self.study.metric, maximize=self.maximizes)

    def seconds(self) -> Chart:
        """Return the best value so far against the training time."""
        return search_charts.best_by_seconds(self.past, self.study.metric, maximize=self.maximizes, clock=self.clock)

    def size(self) -> Chart:
        """Return the metric against the number of parameters."""
        return cost_charts.size_and_value(
            self.ranked, self.study.metric, maximize=self.maximizes, most=len(self.ranked)
        )

    def importance(self) -> Chart:
        """Return the importance of each hyperparameter."""
        return search_charts.importance(importances(self.ranked, self.study.direction))

    def slices(self) -> list[Chart]:
        """Return the metric against each hyperparameter."""
        return search_charts.slices(self.found, self.study.metric, maximize=self.maximizes)

    def parallel(self) -> Chart:
        """Return the trials as lines across an axis for each hyperparameter."""
        return parallel(self.found, self.study.metric, maximize=self.maximizes)

    def curves(self) -> Chart:
        """Return the learning curves."""
        best = self.ranked[0] if self.ranked else None
        return work_charts.learning_curves(self.found, best, self.study.metric, maximize=self.maximizes)

    def timeline(self) -> Chart:
        """Return which worker worked on which trial, and when."""
        return work_charts.timeline(trials.attempts(self.found, datetime.now(UTC)))
