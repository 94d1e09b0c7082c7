"""The choice of a winner among rerun candidates."""

import statistics
from collections.abc import Sequence

from kmnist_search.config import cost
from kmnist_search.evaluation.metrics import Candidate, PairedTest, Rerun
from kmnist_search.evaluation.significance import PAIRED_TEST, paired_p_value
from kmnist_search.retrain.plan import PlannedCandidate

#: Two candidates differ significantly below this p-value.
SIGNIFICANT = 0.05


def candidate_figures(planned: PlannedCandidate, reruns: Sequence[Rerun]) -> Candidate:
    """Return the figures of a candidate, including how much of its score in the study was luck."""
    accuracies = [rerun.val_accuracy for rerun in reruns]
    mean = statistics.fmean(accuracies) if accuracies else None
    return Candidate(
        trial=planned.trial,
        config_digest=planned.config.digest,
        params=planned.params,
        num_parameters=cost.num_parameters(planned.config.model),
        study_val_accuracy=planned.study_val_accuracy,
        reruns=tuple(reruns),
        mean_val_accuracy=mean,
        sd_val_accuracy=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        luck=None if mean is None else planned.study_val_accuracy - mean,
    )


def compared(winner: Candidate, runner_up: Candidate, *, val_share: float) -> PairedTest:
    """Return a paired test of two candidates, whose reruns share seeds and splits."""
    differences = [
        first.val_accuracy - second.val_accuracy for first, second in zip(winner.reruns, runner_up.reruns, strict=True)
    ]
    p_value = paired_p_value(differences, val_share=val_share)
    return PairedTest(
        winner=winner.trial,
        runner_up=runner_up.trial,
        mean_difference=statistics.fmean(differences),
        p_value=p_value,
        distinguishable=p_value is not None and p_value < SIGNIFICANT,
        method=PAIRED_TEST,
    )
