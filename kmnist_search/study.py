"""One study: made or found in a storage, its rules remembered, its trials claimed and ended. Knows nothing of torch."""

import difflib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from kmnist_search.errors import NoCompleteTrialError, StudyChangedError, StudyNotFoundError
from kmnist_search.proposals import experimental, pruner_of, sampler_of
from kmnist_search.queue import REASON_KEY, Owner, Queue
from kmnist_search.seeds import derived_seed
from kmnist_search.storage import Storage
from kmnist_search.study_file import StudyFile

FILE_KEY = "study_file"
DATA_KEY = "data_digest"
LAST_WORKED_KEY = "last_worked_at"
TRACEBACK_KEY = "traceback"

#: What may differ from one run of a study to the next.
FREE_KEYS = ("study.name", "study.trials", "study.meant_for", "enqueue")

optuna.logging.set_verbosity(optuna.logging.WARNING)


class SearchStudy:
    """An optuna study with the rules it was begun with, and the queue of its trials."""

    def __init__(self, storage: Storage, study: optuna.Study) -> None:
        self.storage = storage
        self.optuna = study
        self.name = study.study_name
        self.queue = Queue(storage, study._study_id)
        self.settings: Mapping[str, Any] = study.user_attrs[FILE_KEY]

    @property
    def metric(self) -> str:
        return str(self.settings["study"]["metric"])

    @property
    def epochs(self) -> int:
        return int(self.settings["train"]["epochs"])

    def remember_data(self, digest: str) -> None:
        """Note which images and split the study is searched on.

        Raises:
            StudyChangedError: it was begun with others.
        """
        before = self.optuna.user_attrs.get(DATA_KEY)
        if before is None:
            self.optuna.set_user_attr(DATA_KEY, digest)
        elif before != digest:
            raise StudyChangedError(
                f"study {self.name!r} was begun on other images or another split (data digest {before}, now {digest}). "
                "Use the data it was begun with, or begin another study with --name."
            )

    def touch(self) -> None:
        """Note that the study is worked on now."""
        self.optuna.set_user_attr(LAST_WORKED_KEY, datetime.now(UTC).isoformat())

    def claim(self, owner: Owner, file: StudyFile, *, budget: int) -> Trial | None:
        """Take the next waiting trial, ready to be asked for its hyperparameters; None when there is none to take."""
        trial_id = self.queue.claim(owner, budget=budget)
        if trial_id is None:
            return None
        self.optuna.get_trials(deepcopy=False)  # lets optuna's cache know the trial
        number = self.optuna._storage.get_trial(trial_id).number
        self.optuna.sampler = sampler_of(file.study.sampler, derived_seed(file.study.seed, number, 1))
        self.optuna.pruner = pruner_of(file.study.pruner, file.train.epochs)
        return Trial(self.optuna, trial_id)

    def training_seed(self, number: int) -> int:
        """Return the seed of the training of trial `number`, whoever runs it and however often."""
        return derived_seed(int(self.settings["study"]["seed"]), number, 0)

    def complete(self, trial: Trial, value: float, attributes: Mapping[str, Any]) -> None:
        """End a trial that ran to its last epoch."""
        self.queue.set_attributes(trial._trial_id, attributes)
        self.optuna.tell(trial, value)

    def prune(self, trial: Trial, reason: str, attributes: Mapping[str, Any]) -> None:
        """End a trial early because it is not worth going on."""
        self.queue.set_attributes(trial._trial_id, {**attributes, REASON_KEY: reason})
        self.optuna.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: Trial, reason: str, traceback: str, attributes: Mapping[str, Any]) -> None:
        """End a trial that broke."""
        broken = {REASON_KEY: reason, TRACEBACK_KEY: traceback}
        self.queue.set_attributes(trial._trial_id, {**attributes, **broken})
        self.optuna.tell(trial, state=TrialState.FAIL)

    def ranked(self) -> list[FrozenTrial]:
        """Return the complete trials, best first."""
        trials = self.optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        best_is_highest = self.optuna.direction == optuna.study.StudyDirection.MAXIMIZE
        return sorted(trials, key=lambda trial: trial.values[0], reverse=best_is_highest)

    def best(self) -> FrozenTrial:
        """Return the best complete trial.

        Raises:
            NoCompleteTrialError: there is none.
        """
        ranked = self.ranked()
        if not ranked:
            counts = self.queue.counts()
            raise NoCompleteTrialError(
                f"study {self.name!r} has no complete trial yet: 0 of {counts.total} ({counts.fail} failed). "
                f"See: kmnist-search status {self.name}"
            )
        return ranked[0]

    def reached(self, target: float) -> bool:
        """Return whether the best complete trial is at least as good as `target`."""
        ranked = self.ranked()
        if not ranked:
            return False
        value = float(ranked[0].values[0])
        return value >= target if self.optuna.direction == optuna.study.StudyDirection.MAXIMIZE else value <= target


def open_study(storage: Storage, file: StudyFile) -> SearchStudy:
    """Make the study that `file` describes, or go on with it.

    Raises:
        StudyChangedError: a study of that name was begun with other settings, or not by this package.
    """
    study = optuna.create_study(
        study_name=file.study.name, storage=storage.rdb, direction=file.study.direction, load_if_exists=True
    )
    settings = file.model_dump(mode="json")
    before = study.user_attrs.get(FILE_KEY)
    if before is None and study.get_trials(deepcopy=False):
        raise StudyChangedError(
            f"{storage.shown_url} has a study {file.study.name!r} that kmnist-search did not make. "
            "Choose another --name."
        )
    if before is None:
        study.set_user_attr(FILE_KEY, settings)
        with experimental():
            study.set_metric_names([file.study.metric])
    elif changes := list(_changes(before, settings)):
        raise StudyChangedError(
            f"study {file.study.name!r} in {storage.shown_url} was begun with other settings:\n"
            + "".join(f"  {change}\n" for change in changes)
            + "Trials of different settings cannot be compared. Go back to those it was begun with, or begin another "
            f"study: --name {file.study.name}-2"
        )
    return SearchStudy(storage, study)


def find_study(storage: Storage, name: str | None) -> SearchStudy:
    """Return the study called `name`; with None the only one, or else the one last worked on.

    Raises:
        StudyNotFoundError: there is none.
    """
    names = study_names(storage)
    if not names:
        raise StudyNotFoundError(f"{storage.shown_url} holds no study yet. Begin one with: kmnist-search run")
    if name is None:
        name = names[0]
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1)
        advice = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise StudyNotFoundError(f"{storage.shown_url} has no study {name!r}.{advice} It holds: {', '.join(names)}.")
    return SearchStudy(storage, optuna.load_study(study_name=name, storage=storage.rdb))


def study_names(storage: Storage) -> list[str]:
    """Return the names of this package's studies, the one last worked on first."""
    summaries = optuna.get_all_study_summaries(storage.rdb, include_best_trial=False)
    ours = [summary for summary in summaries if FILE_KEY in summary.user_attrs]
    ours.sort(key=lambda summary: str(summary.user_attrs.get(LAST_WORKED_KEY, "")), reverse=True)
    return [summary.study_name for summary in ours]


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    old, new = dict(_flat(before)), dict(_flat(now))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and not key.startswith(FREE_KEYS):
            yield f"{key}: {old.get(key, 'not there')} then, {new.get(key, 'not there')} now"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
