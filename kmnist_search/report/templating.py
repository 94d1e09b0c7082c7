"""The templates of reports and model cards, with their filters and functions."""

import base64
import re
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from io import BytesIO
from typing import Any, Literal

import jinja2
import numpy as np
import plotly.offline
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from kmnist_search import wording
from kmnist_search.data.catalog import title_of
from kmnist_search.report import sentences
from kmnist_search.report.hiragana_font import font_face


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
            font_face=font_face(),
            plotly_js=Markup(plotly.offline.get_plotlyjs()),
        )
    )


def data_uri(image: NDArray[np.uint8]) -> str:
    """Return an image (H, W), 0 = background, as a data URL of a PNG with dark ink on white paper."""
    out = BytesIO()
    Image.fromarray(255 - image).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _cell(value: Any) -> str:
    """Return a value as text for a cell of a Markdown table."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(str(value).split()))
