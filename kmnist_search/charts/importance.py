"""The importance of each hyperparameter, computed by optuna from the same trials as in the dashboard.

These are the complete trials. Pruned ones are left out: they were judged after fewer epochs, so their values do not
compare.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial

#: As in optuna-dashboard.
FEWEST_TRIALS = 2
#: PED-ANOVA compares the best tenth, which should be five trials or more (Optuna's documentation).
ENOUGH_TRIALS = 50
#: Among so many the best tenth is one trial.
ONE_IN_TENTH = 10


@dataclass(frozen=True, kw_only=True)
class Importances:
    """The share of each hyperparameter, largest first; `note` says how reliable they are, or why there are none."""

    shares: Mapping[str, float] = field(default_factory=dict)
    note: str


def importances(complete: Sequence[FrozenTrial], direction: StudyDirection) -> Importances:
    """Return the importances by PED-ANOVA (Watanabe et al., PED-ANOVA, IJCAI 2023) of complete trials."""
    if len(complete) < FEWEST_TRIALS:
        return Importances(
            note=f"Importance needs at least {FEWEST_TRIALS} complete trials; there is {len(complete) or 'none'}."
        )
    if len({trial.values[0] for trial in complete}) == 1:
        return Importances(note="All complete trials have the same value, so no hyperparameter made a difference.")
    # Imported here because it imports scikit-learn, a quarter of the time in which a worker starts.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    study = optuna.create_study(direction=direction)
    study.add_trials(
        [create_trial(value=each.values[0], params=each.params, distributions=each.distributions) for each in complete]
    )
    with warnings.catch_warnings(action="ignore"):  # about experimental features and few trials; the note says so
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), normalize=False)
    total = sum(found.values())
    if not total:
        return Importances(note="No hyperparameter was seen to make a difference.")
    note = (
        f"From the {len(complete)} complete trials, as in the dashboard, by PED-ANOVA: how much the best tenth differs "
        "from the others."
    )
    if len(complete) <= ONE_IN_TENTH:
        note += f" That is one trial, so this may well be chance; it is steady from about {ENOUGH_TRIALS} trials."
    elif len(complete) < ENOUGH_TRIALS:
        note += f" From so few trials it is a hint; it is steady from about {ENOUGH_TRIALS}."
    shares = sorted(found.items(), key=lambda item: -item[1])
    return Importances(shares={name: share / total for name, share in shares}, note=note)
