"""The choice of a winner among rerun candidates."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kmnist_search.config import cost
from kmnist_search.evaluation.metrics import Candidate, PairedTest, Rerun
from kmnist_search.evaluation.significance import PAIRED_TEST, paired_p_value
from kmnist_search.evaluation.trained import Trained
from kmnist_search.retrain.plan import PlannedCandidate, RetrainingPlan
from kmnist_search.wording import count, percent

#: Two candidates differ significantly below this p-value.
SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The winner, the figures of all candidates, winner first, and whether the second is distinguishable.

    `best` is the best trial of the study.
    """

    winner: PlannedCandidate
    best: PlannedCandidate
    candidates: tuple[Candidate, ...]
    paired_test: PairedTest | None

    def told(self) -> Iterator[str]:
        """Yield the choice as lines for people."""
        winner, test = self.candidates[0], self.paired_test
        if winner.mean_val_accuracy is None or winner.luck is None:
            yield f"winner: trial {winner.trial}, the only candidate"
            return
        yield (
            f"winner: trial {winner.trial}, val_accuracy {percent(winner.mean_val_accuracy)} over "
            f"{count(len(winner.reruns), 'rerun')}; it had {percent(winner.study_val_accuracy)} in the study"
        )
        first = next(candidate for candidate in self.candidates if candidate.trial == self.best.trial)
        if first.luck is not None and self.best.rerun.train.epochs == self.best.epochs:
            confirm = "its one rerun had no less" if len(first.reruns) == 1 else "its reruns confirm it"
            may = f"{first.luck * 100:.2f} points of it may be luck" if first.luck > 0 else confirm
            yield f"the candidates' best score (trial {first.trial}, {percent(first.study_val_accuracy)}): {may}"
        if test is not None:
            verdict = "distinguishable" if test.distinguishable else "not distinguishable"
            reruns = count(len(winner.reruns), "rerun")
            p = "too few reruns to tell" if test.p_value is None else f"p = {test.p_value:.2g}, {reruns}"
            yield f"runner-up: trial {test.runner_up}, {test.mean_difference * 100:.2f} points behind, {verdict} ({p})"


def chosen(plan: RetrainingPlan, reruns: Sequence[Sequence[Trained]]) -> Choice:
    """Return the choice among the candidates of a plan by their finished reruns."""
    figures = [_figures(*pair) for pair in zip(plan.candidates, reruns, strict=True)]
    ranked = sorted(zip(plan.candidates, figures, strict=True), key=lambda pair: -(pair[1].mean_val_accuracy or 0.0))
    candidates = tuple(candidate for _, candidate in ranked)
    paired_test = _compared(*candidates[:2], val_share=plan.data.val_share) if len(candidates) > 1 else None
    return Choice(winner=ranked[0][0], best=plan.candidates[0], candidates=candidates, paired_test=paired_test)


def _rerun(trained: Trained) -> Rerun:
    last = None if trained.diverged else trained.epochs[-1]
    return Rerun(
        seed=trained.seed,
        split_seed=trained.spec.data.split_seed,
        val_accuracy=0.0 if last is None or last.val_accuracy is None else last.val_accuracy,
        val_loss=None if last is None else last.val_loss,
        seconds=trained.seconds,
        epochs=trained.epochs,
    )


def _figures(planned: PlannedCandidate, trained: Sequence[Trained]) -> Candidate:
    """Return the figures of a candidate, including how much of its score in the study was luck."""
    reruns = [_rerun(each) for each in trained]
    accuracies = [rerun.val_accuracy for rerun in reruns]
    mean = statistics.fmean(accuracies) if accuracies else None
    return Candidate(
        trial=planned.trial,
        config_digest=planned.rerun.digest,
        params=planned.params,
        num_parameters=cost.num_parameters(planned.rerun.model),
        study_val_accuracy=planned.study_val_accuracy,
        reruns=tuple(reruns),
        mean_val_accuracy=mean,
        sd_val_accuracy=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        luck=None if mean is None else planned.study_val_accuracy - mean,
    )


def _compared(winner: Candidate, runner_up: Candidate, *, val_share: float) -> PairedTest:
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
