"""The plots of a study in the dashboard.

The dashboard draws each plot without a title in a box 450 pixels high, on white or on nearly black. So each plot has
its own title, and colours that are readable on both.
"""

from collections.abc import Mapping

from optuna.study import StudyDirection

from kmnist_search.charts import cost_charts, search_charts, trials as read, work_charts
from kmnist_search.charts.chart import Chart
from kmnist_search.dashboard_content.snapshot import Snapshot

#: The most trials drawn as dots, the best ones; fewer dots mean less to write at each update.
MAX_DOTS = 1000
#: The most attempts drawn as bars, the last ones; only so many trials are read for them.
MAX_BARS = 500
TOP = 10

#: The value of each colour name; its luminance is between white and the dark theme's cards (#1e1e1e).
COLOURS = {
    "blue": "#4a8fd8",
    "orange": "#e07b28",
    "green": "#3fa66b",
    "red": "#dc5650",
    "purple": "#9a6fd0",
    "grey": "#8a929a",
    "ink": "#7d858d",
    "line": "rgba(128, 136, 144, 0.28)",
    "card": "rgba(0, 0, 0, 0)",
}


class Plot:
    """A chart in the form that the dashboard accepts."""

    def __init__(self, chart: Chart) -> None:
        assert chart.figure is not None
        self._figure = chart.figure
        self._figure.update_layout(
            height=None,
            title={"text": chart.title, "x": 0.02, "y": 0.97, "yanchor": "top", "font": {"size": 15}},
            margin={"l": 8, "r": 16, "t": 76, "b": 8},
            font={"size": 13},
            hoverlabel={"bgcolor": "#2b3137", "font": {"color": "#e6e9ec"}},
        )

    def to_json(self) -> str:
        """Return the figure as JSON, with colour names replaced by colours."""
        text: str = self._figure.to_json()
        for name, colour in COLOURS.items():
            text = text.replace(f"var(--{name})", colour)
        return text


def plots(snapshot: Snapshot) -> Mapping[str, Plot]:
    """Return the plots that have something to draw, by name."""
    metric, maximize = snapshot.file.study.metric, snapshot.direction == StudyDirection.MAXIMIZE
    trials, ranked, clock = snapshot.trials, snapshot.ranked, read.clock_name(snapshot.trials)
    history = read.thinned(read.history(trials, snapshot.direction), MAX_DOTS, snapshot.direction)
    attempts = read.attempts(trials[-MAX_BARS:], snapshot.at)[-MAX_BARS:]
    charts = (
        search_charts.best_by_seconds(history, metric, maximize=maximize, clock=clock),
        cost_charts.size_and_value(ranked, metric, maximize=maximize, most=MAX_DOTS),
        work_charts.best_curves(ranked[:TOP], metric, maximize=maximize),
        cost_charts.spent(read.seconds_by_outcome(trials), read.saved(trials, snapshot.file.train.epochs), clock),
        work_charts.timeline(attempts),
    )
    return {f"kmnist-search-{chart.name}": Plot(chart) for chart in charts if chart.figure is not None}
