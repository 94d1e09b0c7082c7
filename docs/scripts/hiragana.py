"""Draw docs/images/hiragana.png: handwritten samples of the ten classes of KMNIST, under their readings.

    python docs/scripts/hiragana.py DATA_DIR

DATA_DIR has KMNIST/raw. Only training images are drawn.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kmnist_search.data.catalog import CLASS_NAMES
from kmnist_search.data.search_data import load_training_set

OUT = Path(__file__).parents[1] / "images" / "hiragana.png"
ROWS, SIDE, GAP, HEAD = 4, 56, 12, 30
PAPER, INK = np.array([250, 246, 236]), np.array([38, 34, 48])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path)
    samples = load_training_set("kmnist", parser.parse_args().data_dir).samples(ROWS)
    names = CLASS_NAMES["kmnist"]
    size = (GAP + len(names) * (SIDE + GAP), HEAD + ROWS * (SIDE + GAP))
    sheet = Image.new("RGB", size, tuple(PAPER))
    draw = ImageDraw.Draw(sheet)
    for column, (name, images) in enumerate(zip(names, samples, strict=True)):
        left = GAP + column * (SIDE + GAP)
        draw.text((left + SIDE / 2, HEAD / 2), name.reading, tuple(INK), ImageFont.load_default(16), anchor="mm")
        for row, image in enumerate(images):
            sheet.paste(_on_paper(image), (left, HEAD + row * (SIDE + GAP)))
    sheet.quantize(64).save(OUT, optimize=True)


def _on_paper(image_HW: np.ndarray) -> Image.Image:
    """Return white on black, uint8 (28, 28), as ink on paper, `SIDE` pixels wide."""
    grey = Image.fromarray(image_HW).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    share_HW1 = np.asarray(grey)[..., None] / 255
    return Image.fromarray((PAPER + share_HW1 * (INK - PAPER)).round().astype(np.uint8))


if __name__ == "__main__":
    main()
