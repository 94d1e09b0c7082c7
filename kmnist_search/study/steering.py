"""What a user changes in a study while it is searched: what it tries next, and whether its workers work."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from optuna.trial import TrialState

from kmnist_search.errors import ConfigError
from kmnist_search.queue.halt import Halt
from kmnist_search.study.opening import find_companion
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.parser import checked_entry
from kmnist_search.study_file.schema import SearchFile


def enqueue(study: SearchStudy, chosen: Sequence[Mapping[str, Any]]) -> int:
    """Let the next trials of a study take chosen hyperparameters; those left out are left to the sampler.

    They take the place of trials that wait. If too few wait, the study gets more trials.

    Returns:
        How many more trials the study has.

    Raises:
        StudyFileError: a hyperparameter is not searched, or outside of its range; nothing was changed.
        ConfigError: the study consists of planned trainings.
    """
    file = _search_file(study)
    source = f"study {study.name!r}"
    entries = [file.block_by_block(checked_entry(file, entry, source=source)) for entry in chosen]
    with study.storage.writing() as connection:
        return study.queue.enqueue(connection, entries, token=uuid4().hex)


def retry_failed(study: SearchStudy) -> list[int]:
    """Add a trial with the same hyperparameters for each failed trial that was not tried again; return their numbers.

    Raises:
        ConfigError: the study consists of planned trainings.
    """
    _search_file(study)
    failed = [trial for trial in study.trials() if trial.state == TrialState.FAIL]
    token = uuid4().hex
    with study.storage.writing() as connection:
        study.queue.lock(connection)
        repeated = study.queue.repeated(connection)
        again = [trial for trial in failed if trial.number not in repeated]
        numbers = [trial.number for trial in again]
        if again:
            study.queue.enqueue(connection, [trial.params for trial in again], token=token, repeats=numbers)
    return numbers


def halt(study: SearchStudy, how: Halt) -> int | None:
    """Let all workers of a study, and of the retraining of its winner, hand back their trials, and wait or end.

    Returns:
        How many workers were seen lately; None if nothing was changed, because nothing is left to do and no worker is
        there.
    """
    studies = _with_companion(study)
    alive = sum(not worker.is_gone for each in studies for worker in each.workers())
    if not alive and not any(each.counts().unfinished for each in studies):
        return None
    for each in studies:
        each.set_halt(how)
    return alive


def resume(study: SearchStudy) -> Halt | None:
    """Let a study, and the retraining of its winner, be worked on again; return what the halt was."""
    halts = []
    for each in _with_companion(study):
        halts.append(each.halt())
        if halts[-1] is not None:
            each.set_halt(None)
    return next((each for each in halts if each is not None), None)


def _with_companion(study: SearchStudy) -> list[SearchStudy]:
    companion = find_companion(study)
    return [study] if companion is None else [study, companion]


def _search_file(study: SearchStudy) -> SearchFile:
    file = study.file
    if not isinstance(file, SearchFile):
        raise ConfigError(
            f"study {study.name!r} consists of planned trainings: the command that planned them tries failed ones again"
        )
    return file
