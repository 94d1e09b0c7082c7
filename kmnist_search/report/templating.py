"""The templates of the report, with their filters and functions."""

import re
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

import jinja2
import plotly.offline
from markupsafe import Markup

from kmnist_search import wording
from kmnist_search.data.catalog import title_of
from kmnist_search.report import sentences
from kmnist_search.report.pictures import data_uri


@cache
def environment(kind: Literal["html", "md"]) -> jinja2.Environment:
    """Return the templates of one kind. HTML is escaped, because names and reasons come from outside."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("kmnist_search.report"),
        autoescape=kind == "html",
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for each in (
        *(wording.percent, wording.interval, wording.points, wording.value, wording.metric_text),
        *(wording.duration_text, wording.moment),
    ):
        made.filters[each.__name__] = each
    made.filters.update(picture=data_uri, cell=_cell, title_of=title_of)
    made.globals.update(say=sentences, count=wording.count)
    return made


def page(template: str, **values: Any) -> str:
    """Return a template rendered as a complete web page."""
    return (
        environment("html")
        .get_template(template)
        .render(
            **values,
            made_at=datetime.now(UTC),
            version=version("kmnist-search"),
            plotly_js=Markup(plotly.offline.get_plotlyjs()),
        )
    )


def _cell(value: Any) -> str:
    """Return a value as text for a cell of a Markdown table."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(str(value).split()))
