"""Tests of host/files.py: what is written is there whole or not at all."""

from pathlib import Path

import pytest

from kmnist_search.errors import ReportError
from kmnist_search.host.files import discard, whole_file, whole_folder


def test_a_file_is_replaced_at_the_end_and_readable_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")
    with whole_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(each.name for each in tmp_path.iterdir()) == ["page.html", "plain"]


def test_a_file_or_folder_is_as_it_was_after_an_error_of_any_kind(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("old")
    folder.mkdir()
    (folder / "old").touch()
    for whole in (whole_file(file), whole_folder(folder, replace=True)):
        with pytest.raises(KeyboardInterrupt), whole:
            raise KeyboardInterrupt
    assert file.read_text() == "old"
    assert [each.name for each in folder.iterdir()] == ["old"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"]


def test_a_folder_replaces_a_former_one_only_when_asked(tmp_path: Path) -> None:
    folder = tmp_path / "above" / "result"
    with whole_folder(folder) as new:
        (new / "first").write_text("1")
    with pytest.raises(ReportError, match=r"result: cannot be written: Directory not empty\."):  # noqa: SIM117
        with whole_folder(folder, error=ReportError) as new:
            (new / "second").write_text("2")
    assert [each.name for each in folder.iterdir()] == ["first"]
    with whole_folder(folder, replace=True) as new:
        (new / "deep").mkdir()
        (new / "deep" / "third").write_text("3")
    assert (folder / "deep" / "third").read_text() == "3"
    assert [each.name for each in folder.parent.iterdir()] == ["result"]


def test_what_a_killed_process_left_of_a_file_is_discarded_with_it(tmp_path: Path) -> None:
    path, other = tmp_path / "1-1.pt", tmp_path / ".1-2.pt-0123abcd"
    other.touch()
    unfinished = whole_file(path)
    unfinished.__enter__()
    assert len(list(tmp_path.iterdir())) == 2
    discard(path)
    discard(path)
    assert list(tmp_path.iterdir()) == [other]
