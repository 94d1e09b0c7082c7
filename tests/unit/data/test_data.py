"""Tests of data/files.py and data/search_data.py: finding and downloading the files, and the data a search may see."""

import dataclasses
import gzip
import multiprocessing
import multiprocessing.synchronize
import os
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from kmnist_search.config import DataConfig
from kmnist_search.data import files, search_data
from kmnist_search.data.catalog import IDX_DATASETS, TRAINING_IMAGES
from kmnist_search.data.part_sizes import part_sizes
from kmnist_search.data.search_data import SearchData
from kmnist_search.errors import DataError

KMNIST = IDX_DATASETS["kmnist"]
TRAINING_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
ALL_FILES = (*TRAINING_FILES, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture(scope="session")
def real_raw(real_data_dir: Path) -> Path:
    """The folder of the four published KMNIST files."""
    return real_data_dir / "KMNIST" / "raw"


@pytest.fixture(scope="session")
def kmnist(real_raw: Path) -> SearchData:
    return search_data.load(DataConfig(), real_raw.parent.parent)


@pytest.fixture(scope="module")
def digits() -> SearchData:
    return search_data.load(DataConfig(dataset="digits"), Path("/there/is/no/such/folder"))


class DownloadServer(ThreadingHTTPServer):
    """A cached storage on the loopback address; `cut` names the file whose connection it closes half-way."""

    daemon_threads = True

    def __init__(self, folder: Path, *, cut: str = "", delay: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), partial(MirrorHandler, directory=str(folder)))
        self.cut, self.delay = cut, delay
        self.requests: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class MirrorHandler(SimpleHTTPRequestHandler):
    server: DownloadServer

    def do_GET(self) -> None:
        if self.headers.get("Method") == "HEAD":  # how torchvision first asks for redirects; it hangs up at once
            self.do_HEAD()
            return
        self.server.requests[self.path] += 1
        time.sleep(self.server.delay)
        super().do_GET()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        if self.server.cut and self.path == f"/{self.server.cut}":
            content = source.read()
            outputfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            super().copyfile(source, outputfile)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextmanager
def download_server(folder: Path, *, cut: str = "", delay: float = 0.0) -> Iterator[DownloadServer]:
    server = DownloadServer(folder, cut=cut, delay=delay)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a closed port the only cached storage, so that downloads fail for real; return its URL."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/"
    monkeypatch.setattr(torchvision.datasets.KMNIST, "mirrors", [url])
    return url


def left_in(data_dir: Path) -> list[str]:
    """Return everything in `data_dir` but the lock."""
    found = sorted(str(path.relative_to(data_dir)) for path in data_dir.rglob("*"))
    return [name for name in found if name != ".KMNIST.lock"]


def published(data_dir: Path) -> list[str]:
    """Return what lies in `data_dir` after a download that succeeded."""
    return sorted(["KMNIST", "KMNIST/raw", *(f"KMNIST/raw/{name}.gz" for name in ALL_FILES)])


def raw_of(data_dir: Path) -> Path:
    raw = data_dir / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    return raw


def classes(labels: torch.Tensor) -> list[int]:
    return torch.bincount(labels, minlength=10).tolist()


def same(one: SearchData, other: SearchData) -> bool:
    return one.digest == other.digest and all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("train_images", "train_labels", "val_images", "val_labels")
    )


# Finding and downloading.


def test_without_data_and_network_one_message_says_what_is_wanted_where_and_what_works_offline(
    tmp_path: Path, no_network: str
) -> None:
    with pytest.raises(DataError) as caught:
        search_data.load(DataConfig(), tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"KMNIST is not in {tmp_path / 'KMNIST' / 'raw'} and could not be downloaded:"
    assert no_network in lines[1]
    assert "Connection refused" in lines[1]
    assert lines[2:] == [
        "Files needed there, unpacked or as .gz:",
        *(f"  {name}" for name in TRAINING_FILES),
        "Put them there, or point --data-dir (KMNIST_SEARCH_DATA) at a folder that has KMNIST/raw.",
        "To try a search without a download: kmnist-search run quickstart",
    ]


@pytest.mark.parametrize("deeper", ["KMNIST", "KMNIST/raw"])
def test_a_data_folder_that_is_too_deep_is_answered_with_the_right_one(tmp_path: Path, deeper: str) -> None:
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in TRAINING_FILES:
        (raw / name).touch()
    with pytest.raises(DataError, match=f"name the folder above, --data-dir {tmp_path}$"):
        files.training_files(KMNIST, tmp_path / deeper)


@pytest.mark.usefixtures("no_network")
def test_a_failed_download_leaves_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        files.training_files(KMNIST, tmp_path)
    assert left_in(tmp_path) == []


@pytest.mark.usefixtures("no_network")
def test_one_of_the_two_files_alone_is_not_enough_and_is_left_alone(tmp_path: Path) -> None:
    alone = raw_of(tmp_path) / TRAINING_FILES[0]
    alone.write_bytes(b"mine")
    with pytest.raises(DataError, match="could not be downloaded"):
        files.training_files(KMNIST, tmp_path)
    assert left_in(tmp_path) == ["KMNIST", "KMNIST/raw", f"KMNIST/raw/{TRAINING_FILES[0]}"]
    assert alone.read_bytes() == b"mine"


@pytest.mark.usefixtures("no_network")
def test_a_failed_download_leaves_the_timeout_of_the_process_as_it_was(tmp_path: Path) -> None:
    before = socket.getdefaulttimeout()
    with pytest.raises(DataError):
        files.training_files(KMNIST, tmp_path)
    assert socket.getdefaulttimeout() == before


def test_a_data_folder_that_cannot_be_made_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"could not be downloaded:\n .*(Not a directory|File exists)"):
        files.training_files(KMNIST, tmp_path / "file")


def test_a_path_that_cannot_be_looked_at_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="File name too long"):
        files.training_files(KMNIST, tmp_path / ("x" * 300))


@pytest.mark.usefixtures("no_network")
def test_unpacked_files_are_found_before_packed_ones(tmp_path: Path) -> None:
    raw = raw_of(tmp_path)
    for name in TRAINING_FILES:
        (raw / f"{name}.gz").touch()
    assert files.training_files(KMNIST, tmp_path) == tuple(raw / f"{name}.gz" for name in TRAINING_FILES)
    (raw / TRAINING_FILES[0]).touch()
    assert files.training_files(KMNIST, tmp_path) == (raw / TRAINING_FILES[0], raw / f"{TRAINING_FILES[1]}.gz")


def test_a_download_brings_the_published_files_and_nothing_else(
    tmp_path: Path, real_raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The abandoned folder is one that a killed process left behind."""
    abandoned = tmp_path / ".download-KMNIST-killed" / "KMNIST" / "raw"
    abandoned.mkdir(parents=True)
    (abandoned / "train-images-idx3-ubyte.gz").write_bytes(b"half of it")
    of_another_data_set = tmp_path / ".download-MNIST-running"
    of_another_data_set.mkdir()
    with download_server(real_raw) as server:
        monkeypatch.setattr(torchvision.datasets.KMNIST, "mirrors", [server.url])
        images, labels = files.training_files(KMNIST, tmp_path)
    assert sorted(left_in(tmp_path)) == sorted([of_another_data_set.name, *published(tmp_path)])
    assert (images.name, labels.name) == tuple(f"{name}.gz" for name in TRAINING_FILES)
    for name in ALL_FILES:
        assert (images.parent / f"{name}.gz").read_bytes() == (real_raw / f"{name}.gz").read_bytes()


@pytest.mark.parametrize("cut", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_a_connection_cut_half_way_leaves_nothing_half_written(
    tmp_path: Path, real_raw: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    with download_server(real_raw, cut=cut) as server:
        monkeypatch.setattr(torchvision.datasets.KMNIST, "mirrors", [server.url])
        with pytest.raises(DataError, match=r"KMNIST is not in .* and could not be downloaded"):
            files.training_files(KMNIST, tmp_path)
        assert server.requests[f"/{cut}"] >= 1
    assert left_in(tmp_path) == []


def _download(url: str, folder: Path, barrier: multiprocessing.synchronize.Barrier) -> None:
    torchvision.datasets.KMNIST.mirrors = [url]
    barrier.wait(240)
    files.training_files(KMNIST, folder)
    os._exit(0)


@pytest.mark.slow
def test_two_processes_that_download_at_once_both_succeed_with_one_download(tmp_path: Path, real_raw: Path) -> None:
    context = multiprocessing.get_context("spawn")  # forked, one may inherit a lock that nobody here will open
    barrier = context.Barrier(2)
    with download_server(real_raw, delay=0.2) as server:
        processes = [context.Process(target=_download, args=(server.url, tmp_path, barrier)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(240)
    assert [process.exitcode for process in processes] == [0, 0]
    assert server.requests == Counter(f"/{name}.gz" for name in ALL_FILES)
    assert left_in(tmp_path) == published(tmp_path)


# What a search may see.


def test_the_split_of_kmnist_is_50000_to_10000_and_alike_in_every_class(kmnist: SearchData) -> None:
    assert kmnist.train_images.shape == (50_000, 28, 28)
    assert kmnist.val_images.shape == (10_000, 28, 28)
    assert kmnist.train_images.dtype == kmnist.val_images.dtype == torch.uint8
    assert kmnist.train_labels.dtype == kmnist.val_labels.dtype == torch.int64
    assert classes(kmnist.train_labels) == [5000] * 10
    assert classes(kmnist.val_labels) == [1000] * 10


def test_every_training_image_of_kmnist_is_in_exactly_one_part(kmnist: SearchData, real_raw: Path) -> None:
    content = gzip.decompress((real_raw / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    size = 28 * 28
    published_images = Counter(content[start : start + size] for start in range(0, len(content), size))
    parts = torch.cat((kmnist.train_images, kmnist.val_images)).numpy()
    assert Counter(image.tobytes() for image in parts) == published_images


def test_mean_and_deviation_are_those_of_the_training_part(kmnist: SearchData) -> None:
    pixels = kmnist.train_images.double() / 255
    assert kmnist.mean == pytest.approx(pixels.mean().item(), rel=1e-5)
    assert kmnist.std == pytest.approx(pixels.std(correction=0).item(), rel=1e-5)


def test_unpacked_files_and_only_the_two_training_files_give_the_same_data(
    tmp_path: Path, real_raw: Path, kmnist: SearchData
) -> None:
    raw = raw_of(tmp_path)
    for name in TRAINING_FILES:
        (raw / name).write_bytes(gzip.decompress((real_raw / f"{name}.gz").read_bytes()))
    assert same(search_data.load(DataConfig(), tmp_path), kmnist)
    assert sorted(path.name for path in raw.iterdir()) == sorted(TRAINING_FILES)


@pytest.mark.usefixtures("no_network")
def test_the_test_set_is_never_opened(tmp_path: Path, real_raw: Path, kmnist: SearchData) -> None:
    raw = raw_of(tmp_path)
    for name in TRAINING_FILES:
        shutil.copy(real_raw / f"{name}.gz", raw)
    for name in set(ALL_FILES) - set(TRAINING_FILES):
        (raw / f"{name}.gz").write_bytes(b"garbage")
        (raw / name).mkdir()  # cannot be opened at all
    assert same(search_data.load(DataConfig(), tmp_path), kmnist)


def test_no_field_of_search_data_could_hold_a_test_set() -> None:
    assert [field.name for field in dataclasses.fields(SearchData)] == [
        "train_images",
        "train_labels",
        "val_images",
        "val_labels",
        "mean",
        "std",
        "digest",
    ]


def test_damaged_training_labels_are_refused(tmp_path: Path, real_raw: Path) -> None:
    raw = raw_of(tmp_path)
    shutil.copy(real_raw / "train-images-idx3-ubyte.gz", raw)
    content = bytearray(gzip.decompress((real_raw / "train-labels-idx1-ubyte.gz").read_bytes()))
    content[100] = (content[100] + 1) % 10
    (raw / "train-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(DataError, match="train-labels-idx1-ubyte: wrong checksum"):
        search_data.load(DataConfig(), tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_other_data_sets_are_what_the_catalog_says(real_raw: Path, name: str) -> None:
    data_dir = real_raw.parent.parent
    if not files.raw_folder(IDX_DATASETS[name], data_dir).is_dir():
        pytest.skip(f"needs the {name} files beside those of KMNIST in {data_dir}")
    data = search_data.load(DataConfig.model_validate({"dataset": name}), data_dir)
    assert (len(data.train_images), len(data.val_images)) == (50_000, 10_000)


# The digits of scikit-learn, which need no files.


def test_digits_need_neither_folder_nor_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refused)
    data = search_data.load(DataConfig(dataset="digits"), tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
    assert data.train_images.shape[1:] == (28, 28)


def test_a_fifth_of_the_digits_is_sealed(digits: SearchData) -> None:
    assert len(digits.train_images) + len(digits.val_images) == 1437
    assert len(digits.val_images) == round(1437 / 6)
    assert digits.train_images.dtype == torch.uint8
    assert (int(digits.train_images.min()), int(digits.train_images.max())) == (0, 255)


def test_both_parts_hold_the_same_share_of_every_class(digits: SearchData) -> None:
    train, val = classes(digits.train_labels), classes(digits.val_labels)
    assert all(abs(v - (t + v) / 6) < 1 for t, v in zip(train, val, strict=True))


def test_the_same_split_seed_gives_the_same_data_and_another_one_another_split(digits: SearchData) -> None:
    again = search_data.load(DataConfig(dataset="digits"), Path())
    other = search_data.load(DataConfig(dataset="digits", split_seed=1), Path())
    assert same(again, digits)
    assert other.digest != digits.digest
    assert not torch.equal(other.val_images, digits.val_images)
    assert len(other.val_images) == len(digits.val_images)


@pytest.mark.parametrize(("share", "size"), [(0.25, 359), (0.5, 718)])
def test_the_validation_share_is_kept(share: float, size: int) -> None:
    data = search_data.load(DataConfig(dataset="digits", val_share=share), Path())
    assert (len(data.val_images), len(data.train_images)) == (size, 1437 - size)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_a_split_that_leaves_a_class_out_of_a_part_is_refused(share: float) -> None:
    with pytest.raises(DataError) as caught:
        search_data.load(DataConfig(dataset="digits", val_share=share), Path())
    assert str(caught.value) == f"[data] val_share = {share} of 1,437 images leaves a part without some class"


def test_resized_images_keep_their_labels_and_look(digits: SearchData) -> None:
    large = digits.resized(32)
    assert large.train_images.shape == (len(digits.train_images), 32, 32)
    assert large.val_images.shape == (len(digits.val_images), 32, 32)
    assert large.train_images.dtype == torch.uint8
    assert torch.equal(large.train_labels, digits.train_labels)
    assert large.digest == digits.digest
    brightness = digits.train_images.float().mean(dim=(1, 2)) - large.train_images.float().mean(dim=(1, 2))
    assert brightness.abs().max() < 2


def test_images_are_enlarged_as_exact_arithmetic_would(digits: SearchData) -> None:
    """One half is rounded to the even neighbour, whatever the order of summation."""
    weights = torch.zeros(32, 28, dtype=torch.float64)
    for row in range(32):
        centre = (row + 0.5) * 28 / 32 - 0.5
        before = int(centre // 1)
        for column, weight in ((before, before + 1 - centre), (before + 1, centre - before)):
            weights[row, min(max(column, 0), 27)] += weight
    exact = (weights @ digits.val_images.double() @ weights.T).round()
    assert torch.equal(digits.resized(32).val_images, exact.to(torch.uint8))


def test_images_of_the_wanted_size_are_not_touched(digits: SearchData) -> None:
    assert digits.resized(28) is digits


def test_the_parts_of_a_split_are_the_whole_training_set() -> None:
    images = search_data.load_training_set("digits", Path())
    whole, split = images.split(DataConfig().whole()), images.split(DataConfig(dataset="digits", split_seed=5))
    both = sorted([*split.train_images.flatten(1).tolist(), *split.val_images.flatten(1).tolist()])
    assert both == sorted(whole.train_images.flatten(1).tolist())
    assert len({whole.digest, split.digest, images.split(DataConfig(dataset="digits", split_seed=6)).digest}) == 3


@pytest.mark.parametrize(("normalisation", "lowest", "highest"), [("none", 0.0, 1.0), ("symmetric", -1.0, 1.0)])
def test_pixels_are_normalised_to_where_the_study_says(normalisation: Any, lowest: float, highest: float) -> None:
    data = search_data.load(DataConfig(dataset="digits", normalisation=normalisation), Path())
    assert ((0 - data.mean) / data.std, (1 - data.mean) / data.std) == (lowest, highest)
    assert data.digest != search_data.load(DataConfig(dataset="digits"), Path()).digest


def test_standard_pixels_have_no_mean_and_a_spread_of_one() -> None:
    data = search_data.load(DataConfig(dataset="digits"), Path())
    pixels = (data.train_images.double() / 255 - data.mean) / data.std
    assert pixels.mean().item() == pytest.approx(0, abs=1e-6)
    assert pixels.std().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("dataset", ["digits", "kmnist"])
def test_the_numbers_of_images_are_known_without_reading_them(dataset: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue("real_data_dir") if dataset in IDX_DATASETS else Path()
    config = DataConfig(dataset=dataset, val_share=0.3)  # type: ignore[arg-type]
    data = search_data.load(config, folder)
    known = part_sizes(TRAINING_IMAGES[dataset], config.val_share)
    assert (len(data.train_labels), len(data.val_labels)) == known
