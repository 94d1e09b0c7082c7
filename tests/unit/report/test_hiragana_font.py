"""The web font of a page: it has each class of KMNIST, under a name of its own, and a browser asks it for no more."""

import base64
import re
from importlib.resources import files
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from kmnist_search.charts.chart import HIRAGANA_FONT
from kmnist_search.data.catalog import CLASS_NAMES
from kmnist_search.report.hiragana_font import font_face
from kmnist_search.report.templating import environment

CLASSES = [name.text for name in CLASS_NAMES["kmnist"]]


def _font() -> ImageFont.FreeTypeFont:
    content = re.search(r"base64,([^)]*)\)", font_face())
    assert content is not None
    return ImageFont.truetype(BytesIO(base64.b64decode(content[1])), 40)


def _drawn(character: str) -> bytes:
    picture = Image.new("L", (60, 60))
    ImageDraw.Draw(picture).text((4, 0), character, 255, _font())
    return picture.tobytes()


def test_the_font_draws_each_class_in_its_own_way_and_no_other_character() -> None:
    missing = _drawn("\N{HIRAGANA LETTER NU}")
    assert _drawn("A") == missing
    assert len({missing, *map(_drawn, CLASSES)}) == 11


def test_a_browser_takes_the_font_for_the_ten_characters_alone() -> None:
    ranges = re.search(r"unicode-range: ([^;]*);", font_face())
    assert ranges is not None
    assert [chr(int(each.removeprefix("U+"), 16)) for each in ranges[1].split(", ")] == CLASSES


def test_the_font_has_the_name_that_pages_and_charts_ask_for_and_not_that_of_the_original() -> None:
    assert _font().getname()[0] == HIRAGANA_FONT
    style = environment("html").get_template("style.css").render()
    assert f'"{HIRAGANA_FONT}", system-ui' in style


def test_the_licence_of_the_font_comes_with_it() -> None:
    licence = (files("kmnist_search.report") / "fonts" / "OFL.txt").read_text()
    assert licence.startswith("© 2014-2021 Adobe")
    assert "SIL OPEN FONT LICENSE Version 1.1" in licence


def test_a_page_with_the_font_takes_few_bytes_for_it() -> None:
    assert len(font_face()) < 6000
