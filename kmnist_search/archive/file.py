"""The file of an exported study: it is written line by line, and checked line by line when it is read.

It is JSON lines, strict JSON in UTF-8: a header with the study, then one trial per line in the order of their numbers.
`records` defines the lines.
"""

import json
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from kmnist_search.archive.records import Record, StudyRecord, TrialRecord
from kmnist_search.errors import ArchiveError
from kmnist_search.study.study import FILE_KEY

FORMAT: Literal["kmnist-search study"] = "kmnist-search study"
VERSION: Literal[1] = 1

AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


class _Header(Record):
    format: Literal["kmnist-search study"]
    version: Literal[1]
    written_by: str
    study: StudyRecord


class _StudySettings(BaseModel):
    metric: str
    seed: int


class _TrainSettings(BaseModel):
    epochs: int


class _Settings(BaseModel):
    """The part of a study's settings that every study needs."""

    study: _StudySettings
    train: _TrainSettings


def lines_of(study: StudyRecord, trials: Iterable[TrialRecord]) -> Iterator[bytes]:
    """Yield the lines of the file."""
    written_by = f"kmnist-search {version('kmnist-search')}"
    header = _Header(format=FORMAT, version=VERSION, written_by=written_by, study=study)
    yield header.model_dump_json().encode() + b"\n"
    for trial in trials:
        yield trial.model_dump_json().encode() + b"\n"


def records_in(lines: BinaryIO, file: Path) -> tuple[StudyRecord, Iterator[TrialRecord]]:
    """Return the study, and its trials as they are read; messages call the file `file`.

    Raises:
        ArchiveError: a line is invalid; raised also while the trials are drawn, at the latest at their end.
    """
    study = _study_of(lines.readline(), file)
    return study, _trials_of(lines, file, study)


def _study_of(line: bytes, file: Path) -> StudyRecord:
    """Return the study that the header describes."""
    try:
        header = json.loads(line)
        found = header["format"], header["version"], header["written_by"]
    except (ValueError, LookupError, TypeError, RecursionError):
        found = None, None, None
    if found[0] != FORMAT:
        raise ArchiveError(f"{file}, line 1: is no header of an exported study (kmnist-search studies export).")
    if found[1] != VERSION:
        raise ArchiveError(
            f"{file}, line 1: is of format version {found[1]}, written by {found[2]}; kmnist-search "
            f"{version('kmnist-search')} reads version {VERSION}. Import it with the kmnist-search that wrote it."
        )
    study = _parsed(_Header, line, file, 1).study
    if FILE_KEY not in study.user_attrs:
        raise ArchiveError(f"{file}, line 1: study.user_attrs.{FILE_KEY}: the settings of the study are missing.")
    _parsed(_Settings, study.user_attrs[FILE_KEY].encode(), file, 1, f"study.user_attrs.{FILE_KEY}")
    return study


def _trials_of(lines: BinaryIO, file: Path, study: StudyRecord) -> Iterator[TrialRecord]:
    """Check and yield the trials; they must match the header."""
    found = 0
    for found, line in enumerate(lines, start=1):
        trial = _parsed(TrialRecord, line, file, found + 1)
        place = f"{file}, line {found + 1}"
        if found > study.num_trials:
            raise ArchiveError(f"{place}: is one more than the {study.num_trials} trials that line 1 says.")
        if trial.number != found - 1:
            raise ArchiveError(f"{place}: is trial {trial.number} where trial {found - 1} should be.")
        if len(trial.values) not in (0, len(study.directions)):
            raise ArchiveError(
                f"{place}: values: has {len(trial.values)} for a study of {len(study.directions)} objectives."
            )
        yield trial
    if found < study.num_trials:
        raise ArchiveError(
            f"{file}: ends after {found} of {study.num_trials} trials: a part is missing. Export or copy it again."
        )


def _parsed(kind: type[AnyRecord], line: bytes, file: Path, line_number: int, place: str = "") -> AnyRecord:
    try:
        return kind.model_validate_json(line)
    except RecursionError:
        place, problem = "", "is nested too deeply"
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join([*([place] if place else []), *(str(part) for part in first["loc"])])
        problem = first["msg"].removeprefix("Value error, ").replace(" at line 1 column ", " at column ")
    raise ArchiveError(
        f"{file}, line {line_number}: {f'{place}: ' if place else ''}{problem}. "
        "The file is damaged: export or copy it again."
    ) from None
