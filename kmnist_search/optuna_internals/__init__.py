"""Everything private of optuna and its dashboard that is used: ids, tables and key names, and in modules of their own
overridden methods.

No module elsewhere may import a private name of theirs or spell one of their keys (see `.importlinter` and
`tests/unit/test_optuna_internals.py`). `tests/integration/database/test_optuna_contract.py` checks each of them against
the versions that are installed, which `pyproject.toml` pins for that reason.
"""

import re
from collections.abc import Callable
from typing import Any

from optuna.artifacts._protocol import ArtifactStore as ArtifactStore
from optuna.distributions import BaseDistribution
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
