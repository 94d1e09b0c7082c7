"""The choice of a winner among rerun candidates, and the winner's recipe."""

import statistics
from collections.abc import Sequence
from datetime import UTC, datetime

from kmnist_search.config import cost
from kmnist_search.evaluation.metrics import Candidate, PairedTest, Recipe, Rerun
from kmnist_search.evaluation.significance import PAIRED_TEST, paired_p_value
from kmnist_search.retrain.candidates import CandidateConfig
from kmnist_search.saved_model.info import recipe_digest

#: Two candidates differ significantly below this p-value.
SIGNIFICANT = 0.05


def by_mean_accuracy(
    planned: Sequence[CandidateConfig], reruns: Sequence[Sequence[Rerun]]
) -> list[tuple[CandidateConfig, Sequence[Rerun]]]:
    """Return the candidates with their reruns, best mean first; without reruns in the given order."""
    pairs = list(zip(planned, reruns, strict=True))
    return sorted(pairs, key=lambda pair: -_mean(pair[1]) if pair[1] else 0.0)


def _mean(reruns: Sequence[Rerun]) -> float:
    return statistics.fmean(rerun.val_accuracy for rerun in reruns)


def candidate_figures(planned: CandidateConfig, reruns: Sequence[Rerun]) -> Candidate:
    """Return the figures of a candidate, including how much of its score in the study was luck."""
    mean = _mean(reruns) if reruns else None
    return Candidate(
        trial=planned.trial,
        config_digest=planned.config.digest,
        params=planned.params,
        num_parameters=cost.num_parameters(planned.config.model),
        study_val_accuracy=planned.study_val_accuracy,
        reruns=tuple(reruns),
        mean_val_accuracy=mean,
        sd_val_accuracy=statistics.stdev(rerun.val_accuracy for rerun in reruns) if len(reruns) > 1 else None,
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


def recipe_of(winner: CandidateConfig, data_digest: str, seeds: Sequence[int]) -> Recipe:
    """Return the recipe: everything that a final model depends on, except its seed.

    Args:
        winner: the chosen candidate.
        data_digest: digest of the whole training set.
        seeds: seeds of the final models.
    """
    config = winner.config.model_dump(mode="json")
    return Recipe(
        digest=recipe_digest(winner.config, data_digest),
        trial=winner.trial,
        config=config,
        config_digest=winner.config.digest,
        epochs=winner.config.train.epochs,
        seeds=tuple(seeds),
        frozen_at=datetime.now(UTC),
    )
