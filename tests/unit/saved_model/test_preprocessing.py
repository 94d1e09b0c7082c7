"""Tests of saved_model/preprocessing.py: the model sees each kind of image file as it saw its training images."""

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from kmnist_search.config import BatchConfig, DataConfig, OptimizerConfig, PatchMLPConfig, TrainConfig, TrialConfig
from kmnist_search.data import search_data
from kmnist_search.engine.training import Training
from kmnist_search.errors import ImageError
from kmnist_search.saved_model.folder import load_model
from kmnist_search.saved_model.model import SavedModel
from kmnist_search.saved_model.preprocessing import preprocess
from tests.support.models import save_model

pytestmark = pytest.mark.usefixtures("one_thread")

Pixels = NDArray[np.uint8]


def ring() -> Pixels:
    """A ring that fills 28x28 pixels, one quarter of it fainter: turned, it looks different."""
    y, x = np.mgrid[:28, :28] - 13.5
    image = np.where(abs(np.hypot(x, y) - 12.5) < 1.6, 255, 0).astype(np.uint8)
    image[:14, :14] //= 2
    return image


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def scaled(pixels: Pixels, factor: float = 8) -> Image.Image:
    size = round(28 * factor)
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)


def closeness(one: Pixels, other: Pixels) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


# Images of 28x28 pixels.


def test_28_pixels_on_dark_ground_pass_bit_for_bit_and_on_light_ground_inverted(tmp_path: Path) -> None:
    image = ring()
    for mode in ("L", "RGB", "RGBA"):
        dark = saved(Image.fromarray(image).convert(mode), tmp_path / "dark.png")
        light = saved(Image.fromarray(255 - image).convert(mode), tmp_path / "light.png")
        assert np.array_equal(preprocess(dark), image)
        assert np.array_equal(preprocess(str(light)), image)
    assert preprocess(dark).dtype == np.uint8
    preprocess(dark)[0, 0] = 1  # it may be written to


def test_every_training_image_of_kmnist_passes_and_comes_back_from_its_negative(real_data_dir: Path) -> None:
    data = search_data.load(DataConfig(), real_data_dir)
    for image in data.train_images[::100].numpy():
        assert np.array_equal(preprocess(Image.fromarray(image)), image)
        assert np.array_equal(preprocess(Image.fromarray(255 - image)), image)


def test_16_bits_are_scaled_and_not_cut_off(tmp_path: Path) -> None:
    image = ring()
    path = saved(Image.fromarray(image.astype(np.uint16) * 257), tmp_path / "deep.png")
    with Image.open(path) as deep:
        assert deep.mode.startswith("I")
    assert np.array_equal(preprocess(path), image)


def test_palettes_and_black_and_white_are_read(tmp_path: Path) -> None:
    image = np.where(ring() > 100, 255, 0).astype(np.uint8)
    for mode in ("P", "1"):
        assert np.array_equal(preprocess(saved(Image.fromarray(image).convert(mode), tmp_path / "p.png")), image)


# Larger ones.


@pytest.mark.parametrize(
    "shown",
    [
        lambda image: scaled(image),
        lambda image: scaled(255 - image),
        lambda image: scaled(image, 1.5),
        lambda image: scaled(image, 0.8),
        lambda image: scaled(image).convert("RGB"),
        lambda image: scaled(image).convert("CMYK").convert("RGB"),
    ],
)
def test_size_and_ground_do_not_matter(shown: Callable[[Pixels], Image.Image]) -> None:
    found = preprocess(shown(ring()))
    assert (found.shape, found.dtype) == ((28, 28), np.dtype(np.uint8))
    assert closeness(found, ring()) > 0.95


def test_a_character_anywhere_on_a_page_fills_the_image() -> None:
    page = Image.new("L", (900, 500), 230)
    ink = 255 - np.asarray(scaled(255 - ring(), 5))
    page.paste(30, (700, 40), Image.fromarray(ink))
    found = preprocess(page)
    assert closeness(found, preprocess(scaled(ring()))) > 0.97
    assert (found[[0, -1]].max(), found[:, [0, -1]].max()) > (128, 128)
    assert found[14, 14] == 0


def test_what_is_not_square_is_padded_and_centred() -> None:
    bar = np.zeros((300, 300), np.uint8)
    bar[50:260, 30:100] = 255
    found = preprocess(Image.fromarray(bar))
    assert (found[:, 10:18] > 200).all()
    assert (found[:, :7] < 50).all()
    assert (found[:, 21:] < 50).all()


def test_an_orientation_of_exif_is_followed(tmp_path: Path) -> None:
    upright = preprocess(scaled(ring()))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown, turn clockwise
    turned = scaled(ring()).transpose(Image.Transpose.ROTATE_90)
    assert closeness(preprocess(saved(turned, tmp_path / "turned.jpg", exif=exif, quality=95)), upright) > 0.99
    assert closeness(preprocess(saved(turned, tmp_path / "plain.jpg", quality=95)), upright) < 0.99
    small = saved(Image.fromarray(ring()).transpose(Image.Transpose.ROTATE_90), tmp_path / "small.png", exif=exif)
    assert np.array_equal(preprocess(small), ring())


def test_transparent_pixels_are_white_whatever_colour_they_hide(tmp_path: Path) -> None:
    ink = scaled(ring())
    image = Image.new("RGBA", ink.size, (0, 0, 0, 0))  # black ink, and black that cannot be seen
    image.putalpha(ink)
    expected = preprocess(Image.fromarray(255 - np.asarray(ink)))
    assert np.array_equal(preprocess(saved(image, tmp_path / "alpha.png")), expected)


def test_single_pixels_of_noise_do_not_move_the_frame() -> None:
    page = np.zeros((400, 400), np.uint8)
    page[100:300, 150:250] = 255
    clean = preprocess(Image.fromarray(page))
    page[5, 5] = page[390, 20] = page[200, 395] = 255
    assert closeness(preprocess(Image.fromarray(page)), clean) > 0.99


# What is refused.


@pytest.mark.parametrize("size", [(28, 28), (300, 200)])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_blank_image_is_refused(tmp_path: Path, size: tuple[int, int], grey: int) -> None:
    path = saved(Image.new("L", size, grey), tmp_path / "blank.png")
    with pytest.raises(ImageError) as caught:
        preprocess(path)
    assert str(caught.value) == (
        f"{path}: there is nothing on it: its pixels are about as light as its border "
        "(transparent ones count as white)."
    )


def test_white_paper_with_its_grain_is_blank() -> None:
    grain = np.random.default_rng(0).normal(235, 5, (400, 300)).clip(0, 255).astype(np.uint8)
    with pytest.raises(ImageError, match="the image: there is nothing on it"):
        preprocess(Image.fromarray(grain))


def test_what_is_no_image_is_refused_by_name(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("not an image")
    gif = saved(Image.fromarray(ring()), tmp_path / "moving.gif")
    for path, problem in (
        (text, "is not a PNG or JPEG image."),
        (gif, "is not a PNG or JPEG image."),
        (tmp_path / "none.png", "cannot be read: No such file or directory."),
        (tmp_path, "cannot be read: Is a directory."),
    ):
        with pytest.raises(ImageError) as caught:
            preprocess(path)
        assert str(caught.value) == f"{path}: {problem}"


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_wherever_a_file_is_cut_off_it_is_refused(tmp_path: Path, format_: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format_)
    path = tmp_path / "cut"
    for length in range(0, len(buffer.getvalue()) - 20, 13):
        path.write_bytes(buffer.getvalue()[:length])
        with pytest.raises(ImageError, match=r"cut: (is not a PNG or JPEG image|cannot be read: it is damaged: .*)\."):
            preprocess(path)


def test_a_file_with_any_byte_changed_is_read_or_refused_but_never_a_crash(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    scaled(ring(), 2).save(buffer, "PNG")
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.png"
    refused = 0
    for _ in range(300):
        content = bytearray(buffer.getvalue())
        content[rng.integers(len(content))] ^= int(rng.integers(1, 256))
        path.write_bytes(content)
        try:
            assert preprocess(path).shape == (28, 28)
        except ImageError:
            refused += 1
    assert refused > 100


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    path = tmp_path / "bomb.png"
    for side in (10_000, 100_000):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
        with pytest.raises(ImageError, match=r"bomb.png: is too large an image\. Scale it down first\."):
            preprocess(path)


# What it is for: a model trained on KMNIST says the same of a photograph as of the 28x28 pixels.


@pytest.fixture(scope="module")
def kmnist_data(real_data_dir: Path) -> search_data.SearchData:
    data = search_data.load(DataConfig(), real_data_dir)
    return dataclasses.replace(data, train_images=data.train_images[:12_000], train_labels=data.train_labels[:12_000])


@pytest.fixture(scope="module")
def kmnist_model(tmp_path_factory: pytest.TempPathFactory, kmnist_data: search_data.SearchData) -> SavedModel:
    config = TrialConfig(
        model=PatchMLPConfig(patch_size=7, dim=64, token_width=16, channel_width=64, num_blocks=2),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        batch=BatchConfig(batch_size=128),
        train=TrainConfig(epochs=4),
    )
    training = Training(config, kmnist_data, seed=0, device=torch.device("cpu"))
    assert (list(training.epochs())[-1].val_accuracy or 0) > 0.85
    folder = tmp_path_factory.mktemp("kmnist") / "model"
    save_model(
        folder,
        training.evaluated_model,
        dataset="kmnist",
        mean=kmnist_data.mean,
        std=kmnist_data.std,
        config_digest=config.digest,
        recipe_digest="0" * 12,
        seed=0,
    )
    return load_model(folder)


def noisy(image: Image.Image, deviation: float) -> Image.Image:
    pixels = np.asarray(image) + np.random.default_rng(0).normal(0, deviation, (image.height, image.width))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def on_paper(pixels: Pixels) -> Image.Image:
    """Dark grey ink on light grey paper, off the middle, with noise."""
    page = Image.new("L", (340, 400), 205)
    page.paste(60, (70, 40), scaled(pixels))
    return noisy(page, 10)


def see_through(pixels: Pixels) -> Image.Image:
    image = Image.new("RGBA", (224, 224), (20, 20, 60, 0))
    image.putalpha(scaled(pixels))
    return image


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("white.png", lambda pixels: scaled(255 - pixels)),
        ("black.png", scaled),
        ("black.jpg", scaled),
        ("white.jpg", lambda pixels: scaled(255 - pixels).convert("RGB")),
        ("noise.png", lambda pixels: noisy(scaled(pixels), 20)),
        ("paper.jpg", on_paper),
        ("alpha.png", see_through),
        ("small.png", lambda pixels: scaled(255 - pixels, 2)),
    ],
)
def test_a_model_says_of_a_file_what_it_says_of_the_28_pixels(
    tmp_path: Path,
    kmnist_model: SavedModel,
    kmnist_data: search_data.SearchData,
    name: str,
    shown: Callable[[Pixels], Image.Image],
) -> None:
    images = kmnist_data.val_images[:200]
    expected = [prediction.label for prediction in kmnist_model.predict(images)]
    files = []
    for position, image in enumerate(images.numpy()):
        exif = Image.Exif()
        exif[0x0112] = 3  # upside down
        turned = shown(image).transpose(Image.Transpose.ROTATE_180)
        files.append(saved(turned, tmp_path / f"{position}-{name}", exif=exif))
    found = [prediction.label for prediction in kmnist_model.predict(files)]
    assert np.mean(np.equal(found, expected)) >= 0.93
