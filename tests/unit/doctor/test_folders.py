"""Tests of doctor/folders.py: images that are missing, damaged or right, and folders that can be written or not."""

from pathlib import Path

from kmnist_search.doctor.folders import checkpoints, images


def test_missing_images_are_downloaded_by_the_first_run_not_by_the_check(tmp_path: Path) -> None:
    (finding,) = images(tmp_path)
    assert finding.state == "absent"
    assert finding.text == f"KMNIST is not in {tmp_path}/KMNIST/raw"
    assert list(tmp_path.iterdir()) == []


def test_damaged_images_are_bad_and_the_file_is_named(tmp_path: Path) -> None:
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (raw / name).write_bytes(b"no images")
    (finding,) = images(tmp_path)
    assert finding.state == "bad"
    assert f"{raw}/train-images-idx3-ubyte" in finding.text


def test_the_real_images_are_verified_and_the_test_set_is_not_needed(real_data_dir: Path, tmp_path: Path) -> None:
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (real_data_dir / "KMNIST" / "raw").glob("train-*"):
        (raw / path.name).symlink_to(path)
    (finding,) = images(tmp_path)
    assert (finding.state, finding.advice) == ("ok", "")
    assert finding.text.endswith("60,000 training images, checksums are right")


def test_a_folder_is_measured_where_it_would_be_made_and_nothing_is_left(tmp_path: Path) -> None:
    (finding,) = checkpoints(tmp_path / "a" / "b")
    assert finding.text.startswith(f"{tmp_path}/a/b, which the first run makes in {tmp_path}: ")
    assert " MiB/s, " in finding.text
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_bad(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (finding,) = checkpoints(tmp_path / "file" / "kept")
    assert finding.state == "bad"
    assert finding.advice == "Name another folder with --checkpoints, or fix its permissions."
