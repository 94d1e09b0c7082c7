"""optuna-dashboard's application with its caches and its JSON replaced."""

import json
import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from kmnist_search.optuna_internals import TRIAL_KEY, ArtifactStore, FrozenStudy, study_id_of, trial_id_of


class StudyJson:
    """Writes a study as optuna-dashboard does, but each trial only once until it changes."""

    def __init__(self) -> None:
        #: By trial id: the trial and the study's attributes about it, and the JSON that was made of them.
        self._trials: dict[int, tuple[FrozenTrial, dict[str, Any], str]] = {}

    def clear(self) -> None:
        self._trials.clear()

    def __call__(self, study: FrozenStudy, best: list[FrozenTrial], trials: list[FrozenTrial], *rest: Any) -> str:
        """Return the JSON of a study; the arguments are those of optuna-dashboard's `serialize_study_detail`."""
        from optuna_dashboard._serializer import serialize_study_detail

        of_trials: dict[int, dict[str, Any]] = defaultdict(dict)
        for key, value in study.system_attrs.items():
            if match := TRIAL_KEY.match(key):
                of_trials[int(match[1])][key] = value
        texts = [self._trial(study_id_of(study), trial, of_trials.get(trial_id_of(trial), {})) for trial in trials]
        detail = serialize_study_detail(study, best, [], *rest)
        del detail["trials"]
        return f'{{"trials": [{", ".join(texts)}], {json.dumps(detail)[1:]}'

    def _trial(self, study_id: int, trial: FrozenTrial, attributes: dict[str, Any]) -> str:
        from optuna_dashboard._serializer import serialize_frozen_trial

        known = self._trials.get(trial_id_of(trial))
        if known is None or known[0] is not trial or known[1] != attributes:
            text = json.dumps(serialize_frozen_trial(study_id, trial, attributes))
            known = self._trials[trial_id_of(trial)] = trial, attributes, text
        return known[2]


def dashboard_app(storage: BaseStorage, artifact_store: ArtifactStore | None) -> tuple[Any, Callable[[], None]]:
    """Return optuna-dashboard's WSGI application, and a function that empties its caches.

    It differs from `optuna_dashboard.wsgi(storage, artifact_store)` in four ways. Errors of the storage are raised,
    and not logged for each request of each browser. Trials are always read from the storage, which has a cache of its
    own. A trial is written as JSON, and searched for hyperparameters, once until it changes. The hyperparameters that
    all trials share are those of finished trials: a waiting trial has none yet, which would take all of them out of
    the page's parallel coordinates.
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

    study_json = StudyJson()
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
