"""Everything private of optuna and its dashboard that is used: ids, tables, key names, overridden methods.

No other module may import a private name of theirs or spell one of their keys (see `.importlinter` and
`tests/unit/test_optuna_internals.py`). `tests/integration/database/test_optuna_contract.py` checks each of them against
the versions that are installed, which `pyproject.toml` pins for that reason.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from optuna.artifacts._protocol import ArtifactStore as ArtifactStore
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage
from optuna.storages._rdb import models
from optuna.study import Study
from optuna.study._frozen import FrozenStudy as FrozenStudy
from optuna.trial import FrozenTrial, Trial
from sqlalchemy import MetaData, Table

# Ids


def study_id_of(study: Study | FrozenStudy) -> int:
    """Return the id of a study in its storage."""
    return int(study._study_id)


def trial_id_of(trial: FrozenTrial | Trial) -> int:
    """Return the id of a trial in its storage, which is unique among the trials of all studies."""
    return int(trial._trial_id)


# Tables. optuna's own calls take a transaction each, and read a study by its models in ten times the time.

metadata: MetaData = models.BaseModel.metadata
studies: Table = models.StudyModel.__table__
study_directions: Table = models.StudyDirectionModel.__table__
study_user_attributes: Table = models.StudyUserAttributeModel.__table__
study_system_attributes: Table = models.StudySystemAttributeModel.__table__
trials: Table = models.TrialModel.__table__
params: Table = models.TrialParamModel.__table__
values: Table = models.TrialValueModel.__table__
reports: Table = models.TrialIntermediateValueModel.__table__
user_attributes: Table = models.TrialUserAttributeModel.__table__
system_attributes: Table = models.TrialSystemAttributeModel.__table__
#: The longest name of a study, a hyperparameter or an attribute.
MAX_NAME_LENGTH: int = models.MAX_INDEXED_STRING_LENGTH

# A value and a report are stored as a number and a kind, because not every database has infinities and NaN.
stored_value: Callable[[float], tuple[float | None, Any]] = models.TrialValueModel.value_to_stored_repr
value_of: Callable[[float | None, Any], float] = models.TrialValueModel.stored_repr_to_value
stored_report: Callable[[float], tuple[float | None, Any]] = (
    models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
)
report_of: Callable[[float | None, Any], float] = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value


def contains(distribution: BaseDistribution, internal_value: float) -> bool:
    """Return whether a distribution has a value, given as optuna stores it."""
    return bool(distribution._contains(internal_value))


# Keys of system attributes

#: Of a trial: the hyperparameters that it was enqueued with.
FIXED_PARAMS_KEY = "fixed_params"
#: Of a trial: begins the key for each rung of successive halving or Hyperband that the trial reached.
RUNG_KEY_PREFIX = "completed_rung_"
#: Of a study or a trial: begins the key for each artifact.
ARTIFACT_KEY_PREFIX = "artifacts:"
#: Of a study: begin the keys for the pieces of its note and of its plots.
NOTE_KEY_PREFIX = "dashboard:note_"
PLOT_KEY_PREFIX = "dashboard:plot_data:"


# Overridden methods

#: The hyperparameters of finished trials as the sampler works on them, by trial id.
KnownRows = dict[int, tuple[float, ...]]


class KnownSpaceTPESampler(TPESampler):
    """TPE over a known space that converts the hyperparameters of a finished trial once.

    optuna converts those of all trials for each proposal: 20 to 40 of 140 to 170 ms among 10,000 trials (CPU time, 2
    busy cores). There is no public way: distributions with a faster `to_internal_repr`, given to `sample_relative`,
    took as long as optuna's own (155 to 172 ms where these took 127 to 178 and this class 108 to 122).

    Args:
        space: the distributions that are proposed together.
        known_rows: what samplers of the same study share; filled here.
        options: of optuna's sampler.
    """

    def __init__(self, space: dict[str, BaseDistribution], known_rows: KnownRows, **options: Any) -> None:
        super().__init__(**options)
        self._space, self._known_rows = space, known_rows

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space.copy()

    def _get_internal_repr(
        self, trials: list[FrozenTrial], search_space: dict[str, BaseDistribution], study: Study
    ) -> dict[str, np.ndarray]:
        if search_space != self._space:
            return super()._get_internal_repr(trials, search_space, study)
        rows = [row for trial in trials if (row := self._row(trial, study)) is not None]
        columns = np.array(rows, dtype=float).reshape(len(rows), len(search_space)).T
        return dict(zip(search_space, columns, strict=True))

    def _row(self, trial: FrozenTrial, study: Study) -> tuple[float, ...] | None:
        if (known := self._known_rows.get(trial_id_of(trial))) is not None:
            return known
        params = self._get_params(trial, study)
        if not self._space.keys() <= params.keys():
            return None
        row = tuple(spec.to_internal_repr(params[name]) for name, spec in self._space.items())
        if trial.state.is_finished():
            self._known_rows[trial_id_of(trial)] = row
        return row


# optuna-dashboard


def dashboard_app(storage: BaseStorage, artifact_store: ArtifactStore | None) -> tuple[Any, Callable[[], None]]:
    """Return optuna-dashboard's WSGI application, and a function that empties its caches.

    It differs from `optuna_dashboard.wsgi(storage, artifact_store)` in three ways. Errors of the storage are raised,
    and not logged for each request of each browser. Trials are always read from the storage, which has a cache of its
    own. The hyperparameters that all trials share are those of finished trials: a waiting trial has none yet, which
    would take all of them out of the page's parallel coordinates.
    """
    import optuna_dashboard  # takes 2 s of CPU time, which workers need not spend
    from optuna_dashboard import _importance, _inmemory_cache

    class SearchSpaces(_inmemory_cache._CachedExtraStudyProperty):  # type: ignore[misc]
        _intersection_search_space: Any

        def _update_search_space(self, trial: FrozenTrial) -> None:
            common = self._intersection_search_space
            super()._update_search_space(trial)
            if not trial.state.is_finished():
                self._intersection_search_space = common

    class SearchSpacesOfStudies(dict[int, SearchSpaces]):
        def get(self, study_id: int, default: Any = None) -> SearchSpaces:
            return self.setdefault(study_id, SearchSpaces())

    class NoTimes(dict[int, Any]):
        def __setitem__(self, study_id: int, time: Any) -> None:
            """Keep no time, so that trials always count as read too long ago."""

    app = optuna_dashboard.wsgi(storage, artifact_store=artifact_store)
    app.catchall = False
    cache = app._inmemory_cache
    cache._cached_extra_study_property_cache = SearchSpacesOfStudies()
    cache._trials_last_fetched_at = NoTimes()

    def forget() -> None:
        cache.clear()
        _importance.param_importance_cache.clear()

    return app, forget


def silence_dashboard_errors(is_silent: Callable[[], bool]) -> None:
    """Let optuna-dashboard log no error of a request while `is_silent`: the caller answers with a message instead."""
    logging.getLogger("optuna_dashboard._bottle_util").addFilter(lambda _: not is_silent())
