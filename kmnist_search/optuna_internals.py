"""Everything private of optuna and its dashboard that is used: ids, tables, key names, overridden methods.

No other module may import a private name of theirs or spell one of their keys (see `.importlinter` and
`tests/unit/test_optuna_internals.py`). `tests/integration/database/test_optuna_contract.py` checks each of them against
the versions that are installed, which `pyproject.toml` pins for that reason.
"""

import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from optuna.artifacts._protocol import ArtifactStore as ArtifactStore
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
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
#: Of a study: its attributes that belong to one of its trials, whose id the group is.
TRIAL_KEY = re.compile(r"dashboard:(?:artifacts:)?(\d+):")


# Overridden methods

#: The hyperparameters of finished trials as the sampler works on them, by trial id.
KnownRows = dict[int, tuple[float, ...]]


class KnownSpaceTPESampler(TPESampler):
    """TPE over a known space that keeps the order of choices, and converts those of a finished trial once.

    optuna takes all choices as equally far from each other. Those of an ordered hyperparameter are proposed here by
    their positions, as integers are; trials have the choices themselves.

    optuna converts the hyperparameters of all trials for each proposal: 20 to 40 of 140 to 170 ms among 10,000 trials
    (CPU time, 2 busy cores). There is no public way: distributions with a faster `to_internal_repr`, given to
    `sample_relative`, took as long as optuna's own (155 to 172 ms where these took 127 to 178 and this class 108 to
    122).

    Args:
        space: the distributions that are proposed together.
        ordered: the names of those that are choices in their order.
        known_rows: what samplers of the same study share; filled here.
        options: of optuna's sampler.
    """

    def __init__(
        self, space: dict[str, BaseDistribution], ordered: Collection[str], known_rows: KnownRows, **options: Any
    ) -> None:
        super().__init__(**options)
        self._space, self._known_rows = space, known_rows
        self._choices = {name: choices for name, choices in space.items() if name in ordered}
        self._positions = space | {
            name: IntDistribution(0, len(choices.choices) - 1)
            for name, choices in self._choices.items()
            if isinstance(choices, CategoricalDistribution)
        }

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space.copy()

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        proposed = super().sample_relative(study, trial, self._positions)
        for name in self._choices.keys() & proposed.keys():
            proposed[name] = self._choices[name].to_external_repr(proposed[name])
        return proposed

    def _get_internal_repr(
        self, trials: list[FrozenTrial], search_space: dict[str, BaseDistribution], study: Study
    ) -> dict[str, np.ndarray]:
        if search_space != self._positions:  # of a hyperparameter that is proposed by itself
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
