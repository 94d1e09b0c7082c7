"""Pictures of one trial as PNG: learning curves, confusion matrix, and the most confident wrong predictions."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from kmnist_search.charts.predictions import PredictedImage
from kmnist_search.data.catalog import ClassName
from kmnist_search.engine.replica import Epoch

WHITE, INK, PALE, BLUE, ORANGE, RED = "#ffffff", "#1c2126", "#c9ced3", "#2f7fd1", "#d9691a", "#c0392b"
#: Pictures are drawn this many times larger and then reduced, for smooth lines.
FINER = 2
CURVES_SIZE = (640, 400)
CELL, LABELS = 48, 92
ZOOM, GAP, COLUMNS = 3, 12, 8
#: The most wrong images in a picture.
MAX_WRONG = 24


def curves_picture(history: Sequence[Epoch], title: str) -> bytes:
    """Return training and validation accuracy by epoch, below a title."""
    width, height = (FINER * side for side in CURVES_SIZE)
    picture = Image.new("RGB", (width, height), WHITE)
    draw, font = ImageDraw.Draw(picture), _font(14 * FINER)
    left, top, right, bottom = 64 * FINER, 62 * FINER, width - 20 * FINER, height - 40 * FINER
    lines = [
        ("training", BLUE, [epoch.train_accuracy for epoch in history]),
        ("validation", ORANGE, [epoch.val_accuracy for epoch in history if epoch.val_accuracy is not None]),
    ]
    values = [value for _, _, line in lines for value in line]
    low, high = _range(values)
    draw.text((16 * FINER, 12 * FINER), title, INK, _font(16 * FINER))
    for tick in _ticks(low, high):
        y = bottom - (tick - low) / (high - low) * (bottom - top)
        draw.line((left, y, right, y), PALE, FINER)
        draw.text((left - 8 * FINER, y), f"{100 * tick:.4g} %", INK, font, anchor="rm")
    last = max(len(history), 2)
    for epoch in sorted({1, *np.linspace(1, last, 6).round().astype(int).tolist()}):
        x = left + (epoch - 1) / (last - 1) * (right - left)
        draw.text((x, bottom + 8 * FINER), str(epoch), INK, font, anchor="ma")
    for number, (name, colour, line) in enumerate(each for each in lines if each[2]):
        points = [
            (left + at / (last - 1) * (right - left), bottom - (value - low) / (high - low) * (bottom - top))
            for at, value in enumerate(line)
        ]
        draw.line(points, colour, 3 * FINER, joint="curve")
        for x, y in points if len(points) < 40 else []:
            draw.circle((x, y), 3.5 * FINER, colour)
        draw.text((left + 130 * FINER * number, 38 * FINER), f"{name} accuracy", colour, font)
    return _png(picture.resize(CURVES_SIZE, Image.Resampling.LANCZOS))


def confusion_picture(counts: NDArray[np.int64], names: Sequence[ClassName], title: str) -> bytes:
    """Return the confusion matrix, (10, 10): true classes as rows, predicted classes as columns."""
    classes = len(counts)
    picture = Image.new("RGB", (LABELS + classes * CELL + 16, LABELS + classes * CELL + 16), WHITE)
    draw, font = ImageDraw.Draw(picture), _font(14)
    draw.text((12, 10), title, INK, _font(16))
    draw.text((12, 34), "rows: true class, columns: predicted class", INK, font)
    wrong = counts - np.diag(np.diag(counts))
    for row in range(classes):
        middle = LABELS + row * CELL + CELL // 2
        draw.text((LABELS - 8, middle), latin(names[row], 11), INK, font, anchor="rm")
        draw.text((middle, LABELS - 8), latin(names[row], 6), INK, font, anchor="ms")
        for column in range(classes):
            x, y = LABELS + column * CELL, LABELS + row * CELL
            share = counts[row, column] / max(counts[row].sum(), 1)
            strength = share if row == column else wrong[row, column] / max(wrong.max(), 1)
            colour, shade = (BLUE if row == column else RED), 0.75 * float(strength)
            draw.rectangle((x + 1, y + 1, x + CELL - 2, y + CELL - 2), _mixed(colour, shade))
            if counts[row, column]:
                ink = WHITE if shade > 0.55 else INK
                draw.text((x + CELL // 2, y + CELL // 2), str(counts[row, column]), ink, font, anchor="mm")
    return _png(picture)


def wrong_picture(wrong: Sequence[PredictedImage], names: Sequence[ClassName], title: str) -> bytes:
    """Return wrongly predicted images, each above its true and its predicted class."""
    side, text, head = 28 * ZOOM, 40, 62
    rows = max(-(-len(wrong) // COLUMNS), 1)
    picture = Image.new("RGB", (COLUMNS * (side + GAP) + GAP, head + rows * (side + text + GAP)), WHITE)
    draw, font = ImageDraw.Draw(picture), _font(12)
    draw.text((GAP, 12), title, INK, _font(16))
    draw.text((GAP, 36), "true class; in red the predicted class and its probability", INK, font)
    for number, each in enumerate(wrong):
        row, column = divmod(number, COLUMNS)
        x, y = GAP + column * (side + GAP), head + row * (side + text + GAP)
        ink = Image.fromarray(255 - each.picture).resize((side, side), Image.Resampling.NEAREST)
        picture.paste(ink, (x, y))
        draw.rectangle((x - 1, y - 1, x + side, y + side), outline=PALE)
        draw.text((x, y + side + 4), latin(names[each.label], 13), INK, font)
        draw.text((x, y + side + 20), f"{latin(names[each.predicted], 7)} {100 * each.probability:.0f} %", RED, font)
    if not wrong:
        draw.text((GAP, head), "none", INK, font)
    return _png(picture)


def latin(name: ClassName, most: int) -> str:
    """Return a class name in Latin letters, because the font has no others, with at most `most` characters."""
    text = name.reading or name.text
    return text if len(text) <= most else f"{text[: most - 1]}."


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = max(0.05 * (high - low), 0.001)
    return max(low - margin, 0.0), min(high + margin, 1.0) if high < 1 else 1.0


def _ticks(low: float, high: float) -> NDArray[np.float64]:
    """Return two to six round numbers in a range."""
    rough = (high - low) / 5
    unit = 10.0 ** np.floor(np.log10(rough))
    step = unit * next(each for each in (1, 2, 5, 10) if each * unit >= rough)
    ticks: NDArray[np.float64] = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    return ticks


def _mixed(colour: str, share: float) -> tuple[int, int, int]:
    """Return a colour mixed with white; `share` is that of the colour."""
    parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    red, green, blue = (round(255 + share * (part - 255)) for part in parts)
    return red, green, blue


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _png(picture: Image.Image) -> bytes:
    """Return a picture as PNG with a small palette, which makes it small and fast to write."""
    out = BytesIO()
    picture.quantize(64, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(out, "PNG")
    return out.getvalue()
