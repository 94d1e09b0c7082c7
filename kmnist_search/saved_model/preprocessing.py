"""The preprocessing of image files for the models: 28x28 pixels, 0 = background."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from kmnist_search.errors import ImageError

SIZE = 28

#: Images are scaled to this size first, so that noise and strokes have the same size in all of them.
WORKING_SIZE = 8 * SIZE

#: Ink begins at this share of the contrast between ground and ink.
INK_SHARE = 0.25

#: An image with less contrast than this, in grey levels, counts as empty.
MIN_CONTRAST = 32


def preprocess(image: Path | str | Image.Image) -> NDArray[np.uint8]:
    """Return an image as uint8 (28, 28), 0 = background, as the training images are.

    1. It is rotated by its EXIF orientation, put on white where it is transparent, and converted to grey.
    2. The median of its border is the ground. The grey level farthest from it, darker or lighter, is the ink. If the
       ink is darker, the image is inverted.
    3. An image of 28x28 pixels is not changed further.
    4. Otherwise grey levels are stretched from 0 (ground) to 255 (ink). The image is trimmed to the ink (after a median
       filter, so that single pixels of noise do not count), padded to a square with the ink in the centre, and scaled
       with antialiasing. There is no margin, because KMNIST has none.

    The image must show one character, upright, on an even ground.

    Args:
        image: the path of a PNG or JPEG file, or an image of Pillow.

    Raises:
        ImageError: it cannot be read, or is empty.
    """
    name = "the image" if isinstance(image, Image.Image) else str(image)
    grey = _grey(image if isinstance(image, Image.Image) else _opened(Path(image)))
    if grey.size != (SIZE, SIZE):
        grey = _scaled(grey, WORKING_SIZE)
    pixels = np.asarray(grey)
    smooth = pixels if grey.size == (SIZE, SIZE) else np.asarray(grey.filter(ImageFilter.MedianFilter(3)))
    ground = float(np.median(np.concatenate((smooth[[0, -1]].ravel(), smooth[1:-1, [0, -1]].ravel()))))
    darker, lighter = ground - float(smooth.min()), float(smooth.max()) - ground
    contrast = max(darker, lighter)
    if contrast < MIN_CONTRAST:
        raise ImageError(
            f"{name}: there is nothing on it: its pixels are about as light as its border "
            "(transparent ones count as white)."
        )
    if grey.size == (SIZE, SIZE):
        return 255 - pixels if darker > lighter else pixels.copy()
    sign = -1 if darker > lighter else 1
    ink = (np.clip(sign * (pixels - ground) / contrast, 0, 1) * 255).round().astype(np.uint8)
    return _centred(ink, sign * (smooth - ground) >= INK_SHARE * contrast)


def _opened(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=("PNG", "JPEG"))
            image.load()
    except UnidentifiedImageError:
        raise ImageError(f"{path}: is not a PNG or JPEG image.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{path}: is too large an image. Scale it down first.") from None
    except OSError as error:
        reason = error.strerror or f"it is damaged: {error}"
        raise ImageError(f"{path}: cannot be read: {reason}.") from None
    except (SyntaxError, ValueError) as error:  # Pillow raises them for malformed chunks
        raise ImageError(f"{path}: cannot be read: it is damaged: {error}.") from None
    return image


def _grey(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L")


def _scaled(image: Image.Image, long_side: int) -> Image.Image:
    """Return an image scaled to `long_side` pixels on its longer side."""
    factor = long_side / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _centred(ink: NDArray[np.uint8], is_ink: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Trim to the ink, pad to a square, and scale."""
    # No margin, and in the centre: of KMNIST's 60,000 training images 90 % have ink (64 and more of 255) in all 28
    # rows or all 28 columns; the mean of the longer side is 27.85 pixels, that of the distance of the ink's centre
    # from the image's 0.04 (python tests/benchmarks/margins.py DATA_DIR).
    rows, columns = np.flatnonzero(is_ink.any(axis=1)), np.flatnonzero(is_ink.any(axis=0))
    trimmed = Image.fromarray(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    side = max(trimmed.size)
    square = Image.new("L", (side, side))
    square.paste(trimmed, ((side - trimmed.width) // 2, (side - trimmed.height) // 2))
    return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.LANCZOS))
