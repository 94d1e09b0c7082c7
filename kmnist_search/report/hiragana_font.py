"""The ten hiragana of KMNIST as a web font, which a page holds, for readers without a Japanese font."""

import base64
from functools import cache
from importlib.resources import files

from markupsafe import Markup

from kmnist_search.charts.chart import HIRAGANA_FONT
from kmnist_search.data.catalog import CLASS_NAMES


@cache
def font_face() -> Markup:
    """Return the CSS rule that holds the font. A browser uses it for the ten characters alone."""
    content = (files("kmnist_search.report") / "fonts" / "hiragana.woff2").read_bytes()
    characters = ", ".join(f"U+{ord(name.text):04X}" for name in CLASS_NAMES["kmnist"])
    return Markup(
        f'@font-face {{ font-family: "{HIRAGANA_FONT}"; unicode-range: {characters}; '
        f'src: url(data:font/woff2;base64,{base64.b64encode(content).decode()}) format("woff2"); }}'
    )
