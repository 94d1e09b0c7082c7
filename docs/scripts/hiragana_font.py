"""Make kmnist_search/report/fonts/hiragana.woff2: the ten classes of KMNIST, and nothing else, of Noto Sans CJK JP.

    pip install "fonttools[woff]"
    python docs/scripts/hiragana_font.py FONT

FONT is NotoSansCJK-Regular.ttc, for example of Debian's package fonts-noto-cjk, or NotoSansCJKjp-Regular.otf.
"""

import argparse
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

from kmnist_search.data.catalog import CLASS_NAMES

OUT = Path(__file__).parents[2] / "kmnist_search" / "report" / "fonts" / "hiragana.woff2"
#: Not the name of the original: the ten glyphs are no longer that font.
NAME = "KMNIST Hiragana"
#: The entries of the table of names that say how the font is called: family, full name, PostScript, and the like.
NAMING = {1: NAME, 3: NAME, 4: NAME, 6: NAME.replace(" ", ""), 16: NAME, 18: NAME, 21: NAME, 25: NAME.replace(" ", "")}
#: The entries that stay as they are: copyright, style, version, trademark, licence, address of the licence.
KEPT = (0, 2, 5, 7, 13, 14)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("font", type=Path)
    # The first font of the collection is the Japanese one. Its time stays, so that the same font gives the same file.
    font = TTFont(parser.parse_args().font, fontNumber=0, recalcTimestamp=False)
    options = Options(
        flavor="woff2", name_IDs=[*KEPT, *NAMING], notdef_outline=True, layout_features=[], desubroutinize=True
    )
    subsetter = Subsetter(options)
    subsetter.populate(text="".join(name.text for name in CLASS_NAMES["kmnist"]))
    subsetter.subset(font)
    for record in font["name"].names:
        record.string = NAMING.get(record.nameID, record.toUnicode())
    outlines = font["CFF "].cff  # they have names of their own
    outlines.fontNames = [NAME.replace(" ", "")]
    outlines.topDictIndex[0].FullName = outlines.topDictIndex[0].FamilyName = NAME
    font.flavor = "woff2"
    font.save(OUT)


if __name__ == "__main__":
    main()
