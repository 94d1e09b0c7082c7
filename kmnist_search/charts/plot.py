"""A chart outside of the report's page: with its own title, and colours that are readable on white and on black."""

import plotly.graph_objects as go
import plotly.io

from kmnist_search.charts.chart import Chart

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
    """A chart by itself, also in the form that optuna-dashboard accepts."""

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

    @property
    def figure(self) -> go.Figure:
        """The figure, in colours."""
        return plotly.io.from_json(self.to_json())

    def to_json(self) -> str:
        """Return the figure as JSON, with colour names replaced by colours."""
        text: str = self._figure.to_json()
        for name, colour in COLOURS.items():
            text = text.replace(f"var(--{name})", colour)
        return text
