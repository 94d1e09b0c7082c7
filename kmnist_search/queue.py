"""The queue of waiting trials, which is the budget of a study. Knows nothing of samplers, spaces or training.

Each change is one transaction that first locks the study, so any number of processes agree on it. It is written in SQL
on optuna's tables because optuna's own calls take one transaction each: between two of them another process could take
the same trial, and one that dies there would leave it RUNNING for ever with no owner.
"""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psutil
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import ScalarResult, delete, func, select
from sqlalchemy.orm import Session

from kmnist_search.storage import Storage

OWNER_KEY = "owner"
ATTEMPTS_KEY = "attempts"
REASON_KEY = "reason"
#: What optuna's successive halving and Hyperband note in a trial for each rung it reached.
RUNG_KEY_PREFIX = "completed_rung_"

#: A trial whose process died this often is failed: most likely it is what kills them.
MAX_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The process that runs a trial.

    `born`, in seconds after the machine's start so that setting the clock does not move it, tells the process from a
    later one with the same pid.
    """

    host: str
    pid: int
    born: float

    @classmethod
    def this_process(cls) -> "Owner":
        return cls(host=platform.node(), pid=os.getpid(), born=_born(psutil.Process()))

    def is_dead(self) -> bool:
        """Return True if the process certainly no longer runs; of another host that is not known."""
        if self.host != platform.node():
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(_born(process) - self.born) > 1 or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


def _born(process: psutil.Process) -> float:
    return process.create_time() - psutil.boot_time()


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many trials of a study are in which state."""

    complete: int = 0
    pruned: int = 0
    fail: int = 0
    running: int = 0
    waiting: int = 0

    @property
    def finished(self) -> int:
        return self.complete + self.pruned + self.fail

    @property
    def total(self) -> int:
        return self.finished + self.running + self.waiting


class Queue:
    """The trials of one study as work to be shared out."""

    def __init__(self, storage: Storage, study_id: int) -> None:
        self.storage = storage
        self.study_id = study_id

    def counts(self) -> Counts:
        """Return how many trials are in which state."""
        with self._transaction() as session:
            return self._counts(session)

    def fill(self, budget: int, first: Sequence[Mapping[str, Any]] = ()) -> int:
        """Add waiting trials until the study has `budget` trials in all; return how many were added.

        The first trials of a study take the hyperparameters in `first`; the others are sampled when claimed.
        """
        with self._transaction() as session:
            present = self._counts(session).total
            for number in range(present, budget):
                trial = models.TrialModel(study_id=self.study_id, number=number, state=TrialState.WAITING)
                session.add(trial)
                if number < len(first):
                    session.flush()
                    session.add(
                        models.TrialSystemAttributeModel(
                            trial_id=trial.trial_id, key="fixed_params", value_json=json.dumps(dict(first[number]))
                        )
                    )
            return max(budget - present, 0)

    def claim(self, owner: Owner, *, budget: int) -> int | None:
        """Take the first waiting trial for `owner` and return its id.

        What an earlier attempt at it reported is forgotten; the owner reports anew what its checkpoint knows.
        Returns None when none waits, or when `budget` trials are finished or running already.
        """
        with self._transaction() as session:
            counts = self._counts(session)
            if counts.finished + counts.running >= budget:
                return None
            trial = self._trials(session, TrialState.WAITING).first()
            if trial is None:
                return None
            trial.state = TrialState.RUNNING
            trial.datetime_start = datetime.now()
            _set_attributes(session, int(trial.trial_id), {OWNER_KEY: asdict(owner)})
            _forget_reports(session, int(trial.trial_id))
            return int(trial.trial_id)

    def hand_back(self, trial_id: int) -> None:
        """Put a running trial back among the waiting, with its hyperparameters."""
        with self._transaction() as session:
            session.get_one(models.TrialModel, trial_id).state = TrialState.WAITING

    def recover(self) -> list[int]:
        """Put the trials of dead processes back among the waiting; return their numbers.

        One that took its process with it `MAX_ATTEMPTS` times is failed instead.
        """
        with self._transaction() as session:
            recovered = []
            for trial in self._trials(session, TrialState.RUNNING).all():
                owner = _attribute(session, int(trial.trial_id), OWNER_KEY)
                if owner is None or not Owner(**owner).is_dead():
                    continue
                attempts = (_attribute(session, int(trial.trial_id), ATTEMPTS_KEY) or 0) + 1
                _set_attributes(session, int(trial.trial_id), {ATTEMPTS_KEY: attempts})
                if attempts < MAX_ATTEMPTS:
                    trial.state = TrialState.WAITING
                else:
                    trial.state = TrialState.FAIL
                    trial.datetime_complete = datetime.now()
                    _set_attributes(session, int(trial.trial_id), {REASON_KEY: f"its process died {attempts} times"})
                recovered.append(int(trial.number))
            return recovered

    def set_attributes(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        """Write several user attributes of a trial at once."""
        with self._transaction() as session:
            _set_attributes(session, trial_id, attributes)

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with Session(self.storage.engine) as session, session.begin():
            this_study = models.StudyModel.study_id == self.study_id
            session.execute(select(models.StudyModel.study_id).where(this_study).with_for_update())
            yield session

    def _trials(self, session: Session, state: TrialState) -> ScalarResult[models.TrialModel]:
        trial = models.TrialModel
        return session.scalars(
            select(trial).where(trial.study_id == self.study_id, trial.state == state).order_by(trial.number)
        )

    def _counts(self, session: Session) -> Counts:
        states = (
            select(models.TrialModel.state, func.count())
            .where(models.TrialModel.study_id == self.study_id)
            .group_by(models.TrialModel.state)
        )
        return Counts(**{state.name.lower(): count for state, count in session.execute(states)})


def _set_attributes(session: Session, trial_id: int, attributes: Mapping[str, Any]) -> None:
    model = models.TrialUserAttributeModel
    session.execute(delete(model).where(model.trial_id == trial_id, model.key.in_(attributes)))
    session.add_all(
        model(trial_id=trial_id, key=key, value_json=json.dumps(value)) for key, value in attributes.items()
    )


def _forget_reports(session: Session, trial_id: int) -> None:
    """Delete the reports of a trial, and the rungs a pruner noted for it."""
    reports, attributes = models.TrialIntermediateValueModel, models.TrialSystemAttributeModel
    session.execute(delete(reports).where(reports.trial_id == trial_id))
    session.execute(
        delete(attributes).where(attributes.trial_id == trial_id, attributes.key.startswith(RUNG_KEY_PREFIX))
    )


def _attribute(session: Session, trial_id: int, key: str) -> Any:
    model = models.TrialUserAttributeModel
    text = session.scalar(select(model.value_json).where(model.trial_id == trial_id, model.key == key))
    return None if text is None else json.loads(text)
