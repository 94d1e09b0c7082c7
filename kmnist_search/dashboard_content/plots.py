"""The plots of a study in the dashboard, which draws each without a title in a box 450 pixels high."""

from collections.abc import Mapping

from optuna.study import StudyDirection

from kmnist_search.charts import cost_charts, search_charts, trials as read, work_charts
from kmnist_search.charts.plot import Plot
from kmnist_search.dashboard_content.snapshot import Snapshot

#: The most trials drawn as dots, the best ones; fewer dots mean less to write at each update.
MAX_DOTS = 1000
#: The most attempts drawn as bars, the last ones; only so many trials are read for them.
MAX_BARS = 500
TOP = 10


def plots(snapshot: Snapshot) -> Mapping[str, Plot]:
    """Return the plots that have something to draw, by name."""
    metric, maximize = snapshot.file.study.metric, snapshot.direction == StudyDirection.MAXIMIZE
    trials, ranked, clock = snapshot.trials, snapshot.ranked, read.clock_name(snapshot.trials)
    history = read.thinned(read.history(trials, snapshot.direction), MAX_DOTS, snapshot.direction)
    attempts = read.attempts(trials[-MAX_BARS:], snapshot.at)[-MAX_BARS:]
    charts = (
        search_charts.best_by_seconds(history, metric, maximize=maximize, clock=clock),
        cost_charts.size_and_value(ranked, metric, maximize=maximize, most=MAX_DOTS, described=False),
        work_charts.best_curves(ranked[:TOP], metric, maximize=maximize),
        cost_charts.spent(read.seconds_by_outcome(trials), read.saved(trials, snapshot.file.train.epochs), clock),
        work_charts.timeline(attempts),
    )
    return {f"kmnist-search-{chart.name}": Plot(chart) for chart in charts if chart.figure is not None}
