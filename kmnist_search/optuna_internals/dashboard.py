"""optuna-dashboard's application with its caches and its JSON replaced."""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from kmnist_search.optuna_internals import TRIAL_KEY, ArtifactStore, FrozenStudy, study_id_of, trial_id_of

#: Digits of the best value, which the page prints in large letters.
BEST_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class NotedTrial:
    """A trial and what its note is made of.

    Attributes:
        study_id: of its study.
        study_name: of its study.
        metrics: names of the values, if the study has any.
        trial: the trial itself.
        artifacts: of the trial, each with `artifact_id`, `filename` and `mimetype`.
        text: of its note as it is stored.
    """

    study_id: int
    study_name: str
    metrics: Sequence[str]
    trial: FrozenTrial
    artifacts: Sequence[Mapping[str, Any]]
    text: str

    def artifact_path(self, artifact_id: str) -> str:
        """Return where the server has an artifact of the trial."""
        return f"/artifacts/{self.study_id}/{trial_id_of(self.trial)}/{artifact_id}"


#: Returns the note of a trial as the page shows it.
TrialNote = Callable[[NotedTrial], str]


def stored_note(noted: NotedTrial) -> str:
    """Return the note as it is stored, which optuna-dashboard shows."""
    return noted.text


class StudyJson:
    """Writes a study as optuna-dashboard does, but each trial only once until it changes.

    Notes of trials are those of `trial_note`. The best value of a study with one objective is rounded.
    """

    def __init__(self, trial_note: TrialNote = stored_note) -> None:
        self._trial_note = trial_note
        #: By trial id: the trial and what else its JSON depends on, and the JSON.
        self._trials: dict[int, tuple[FrozenTrial, _Circumstances, str]] = {}

    def clear(self) -> None:
        self._trials.clear()

    def __call__(self, study: FrozenStudy, best: list[FrozenTrial], trials: list[FrozenTrial], *rest: Any) -> str:
        """Return the JSON of a study; the arguments are those of optuna-dashboard's `serialize_study_detail`."""
        from optuna_dashboard._serializer import serialize_study_detail

        of_trials: dict[int, dict[str, Any]] = defaultdict(dict)
        for key, value in study.system_attrs.items():
            if match := TRIAL_KEY.match(key):
                of_trials[int(match[1])][key] = value
        detail = serialize_study_detail(study, best, [], *rest)
        del detail["trials"]
        for each in detail["best_trials"]:
            if "values" in each:  # trials that people only compare have none
                each["values"] = _rounded(each["values"])
        name, metrics = study.study_name, detail.get("objective_names", [])
        texts = [
            self._trial(study_id_of(study), trial, (name, metrics, of_trials.get(trial_id_of(trial), {})))
            for trial in trials
        ]
        return f'{{"trials": [{", ".join(texts)}], {json.dumps(detail)[1:]}'

    def _trial(self, study_id: int, trial: FrozenTrial, circumstances: "_Circumstances") -> str:
        from optuna_dashboard._serializer import serialize_frozen_trial

        known = self._trials.get(trial_id_of(trial))
        if known is None or known[0] is not trial or known[1] != circumstances:
            study_name, metrics, attributes = circumstances
            detail = serialize_frozen_trial(study_id, trial, attributes)
            noted = NotedTrial(
                study_id=study_id,
                study_name=study_name,
                metrics=metrics,
                trial=trial,
                artifacts=detail["artifacts"],
                text=detail["note"]["body"],
            )
            detail["note"]["body"] = self._trial_note(noted)
            known = self._trials[trial_id_of(trial)] = trial, circumstances, json.dumps(detail)
        return known[2]


#: The name of the study, the names of its values, and its attributes about a trial.
_Circumstances = tuple[str, Sequence[str], dict[str, Any]]


def _rounded(values: list[Any]) -> list[Any]:
    """Return the value of a study with one objective rounded; the page prints all its digits."""
    return [float(f"{values[0]:.{BEST_DIGITS}g}")] if len(values) == 1 and isinstance(values[0], float) else values


def dashboard_app(
    storage: BaseStorage, artifact_store: ArtifactStore | None, trial_note: TrialNote = stored_note
) -> tuple[Any, Callable[[], None]]:
    """Return optuna-dashboard's WSGI application, and a function that empties its caches.

    It differs from `optuna_dashboard.wsgi(storage, artifact_store)` in five ways. Errors of the storage are raised,
    and not logged for each request of each browser. Trials are always read from the storage, which has a cache of its
    own. A trial is written as JSON, and searched for hyperparameters, once until it changes. The notes of trials are
    those of `trial_note`, and the best value is rounded. The hyperparameters that all trials share are those of
    finished trials: a waiting trial has none yet, which would take all of them out of the page's parallel coordinates.
    """
    import optuna_dashboard  # takes 2 s of CPU time, which workers need not spend
    from optuna_dashboard import _app, _importance, _inmemory_cache

    class SearchSpaces(_inmemory_cache._CachedExtraStudyProperty):  # type: ignore[misc]
        _intersection_search_space: Any

        def __init__(self) -> None:
            super().__init__()
            self._finished: set[int] = set()

        def update(self, trials: list[FrozenTrial]) -> None:
            self._cursor = -1  # optuna-dashboard's own mark, which it never moves while no trial runs or waits
            super().update([trial for trial in trials if trial.number not in self._finished])
            self._finished = {trial.number for trial in trials if trial.state.is_finished()}

        def _update_search_space(self, trial: FrozenTrial) -> None:
            common = self._intersection_search_space
            super()._update_search_space(trial)
            if not trial.state.is_finished():
                self._intersection_search_space = common

    class SearchSpacesOfStudies(dict[int, SearchSpaces]):
        def get(self, study_id: int, default: Any = None) -> SearchSpaces:
            return self.setdefault(study_id, SearchSpaces())

    study_json = StudyJson(trial_note)
    _app.serialize_study_detail = study_json
    _app.get_trials = lambda _cache, storage, study_id: storage.get_all_trials(study_id, deepcopy=False)
    app = optuna_dashboard.wsgi(storage, artifact_store=artifact_store)
    app.catchall = False
    cache = app._inmemory_cache
    cache._cached_extra_study_property_cache = SearchSpacesOfStudies()

    def forget() -> None:
        cache.clear()
        study_json.clear()
        _importance.param_importance_cache.clear()

    return app, forget


def silence_dashboard_errors(is_silent: Callable[[], bool]) -> None:
    """Let optuna-dashboard log no error of a request while `is_silent`: the caller answers with a message instead."""
    logging.getLogger("optuna_dashboard._bottle_util").addFilter(lambda _: not is_silent())
