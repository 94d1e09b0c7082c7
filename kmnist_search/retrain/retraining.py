"""From the best trials of a study to final models and what they come to on the test set. Shows and publishes nothing.

The order is the point: reruns of the candidates on fresh seeds and fresh splits choose the winner; its recipe is frozen
and written down; models are trained by it on all training images; only then is the test set opened, once for each.
What is done is in the study's ledger, so a retraining that is started again goes on where it was.
"""

import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from kmnist_search.config import Dataset, TrialConfig
from kmnist_search.data.search_data import SearchData, TrainingSet
from kmnist_search.data.test_set import SealedSet, open_test_set
from kmnist_search.engine import checkpoint
from kmnist_search.engine.threads import threads_for
from kmnist_search.engine.training import Training
from kmnist_search.errors import TrainingDivergedError
from kmnist_search.metrics import (
    Candidate,
    EpochFigures,
    FinalModel,
    FinalTraining,
    Opening,
    PairedTest,
    Recipe,
    Rerun,
)
from kmnist_search.retrain.candidates import Plan, Planned
from kmnist_search.retrain.choice import by_mean_accuracy, candidate_figures, compared, recipe_of
from kmnist_search.retrain.events import (
    EpochDone,
    ModelTested,
    RecipeFrozen,
    RetrainingEvent,
    Stage,
    TrainingEnded,
    TrainingStarted,
    WinnerChosen,
)
from kmnist_search.retrain.final_models import FinalModels
from kmnist_search.retrain.ledger import Ledger
from kmnist_search.signals import StopSignals
from kmnist_search.study import SearchStudy

CHECKPOINT_EVERY_SECONDS = 30.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Finding:
    """What a retraining came to.

    Attributes:
        candidates: the winner first.
        models: of the recipe's seeds, in their order; the first is the one that is kept.
        folders: of the saved models, in the same order.
        ledger: every look at the test set for this study.
        test_set: what they were tested on.
    """

    candidates: tuple[Candidate, ...]
    paired_test: PairedTest | None
    recipe: Recipe
    models: tuple[FinalModel, ...]
    folders: tuple[Path, ...]
    ledger: tuple[Opening, ...]
    test_set: SealedSet


class Retraining:
    """One retraining of a study in this process.

    Attributes:
        finding: what it came to, once `work` is exhausted; None if it was stopped before.
        unsaved: why the last checkpoint could not be written; empty if it was.
    """

    def __init__(
        self,
        study: SearchStudy,
        plan: Plan,
        images: TrainingSet,
        *,
        dataset: Dataset,
        data_dir: Path,
        device: torch.device,
        signals: StopSignals,
    ) -> None:
        self.study, self.plan, self.images = study, plan, images
        self.dataset, self.data_dir, self.device, self.signals = dataset, data_dir, device, signals
        self.ledger = Ledger(study)
        self.final_models = FinalModels(self.ledger, study.checkpoint_dir, dataset)
        self.finding: Finding | None = None
        self.unsaved = ""
        self._number = 0

    def work(self) -> Iterator[RetrainingEvent]:
        """Choose, freeze, train, test; what was done before is not done again.

        Raises:
            TrainingDivergedError: a final model's loss is no longer finite.
            ModelError: a final model cannot be saved.
        """
        reruns = yield from self._reruns()
        if reruns is None:
            return
        ranked = by_mean_accuracy(self.plan.candidates, reruns)
        candidates = tuple(candidate_figures(planned, done) for planned, done in ranked)
        paired_test = compared(*candidates[:2], val_share=self.plan.val_share) if len(candidates) > 1 else None
        yield WinnerChosen(candidates=candidates, paired_test=paired_test)
        winner, whole = ranked[0][0], self.images.whole()
        recipe = self.ledger.freeze(recipe_of(winner, whole.digest, self.plan.final_seeds))
        yield RecipeFrozen(recipe=recipe)
        finals = yield from self._finals(winner, recipe, whole)
        if finals is None:
            return
        test_set = open_test_set(self.dataset, self.data_dir)
        models = []
        for final in finals:
            model, from_ledger = self.final_models.tested(recipe, final, test_set)
            models.append(model)
            yield ModelTested(model=model, from_ledger=from_ledger)
        self.finding = Finding(
            candidates=candidates,
            paired_test=paired_test,
            recipe=recipe,
            models=tuple(models),
            folders=tuple(self.final_models.folder(recipe, seed) for seed in recipe.seeds),
            ledger=tuple(self.ledger.openings()),
            test_set=test_set,
        )

    def _reruns(self) -> Generator[RetrainingEvent, None, list[list[Rerun]] | None]:
        """Return the reruns, candidate by candidate, or None after a stop."""
        reruns = []
        for planned in self.plan.candidates:
            done = []
            for seed, split in self.plan.reruns:
                rerun = self.ledger.rerun(planned.config.digest, seed)
                if rerun is None:
                    training = yield from self._trained("rerun", planned, self.images.split(split), seed)
                    if training is None:
                        return None
                    rerun = _rerun(training, split.split_seed)
                    self.ledger.note_rerun(planned.config.digest, rerun)
                    self._discard_checkpoint(planned.config, seed)
                    yield self._ended("rerun", planned, seed, rerun.val_accuracy, rerun.seconds)
                else:
                    self._number += 1
                    yield self._ended("rerun", planned, seed, rerun.val_accuracy, rerun.seconds, was_done=True)
                done.append(rerun)
            reruns.append(done)
        return reruns

    def _finals(
        self, winner: Planned, recipe: Recipe, whole: SearchData
    ) -> Generator[RetrainingEvent, None, list[FinalTraining] | None]:
        """Return the final trainings, whose models are saved, or None after a stop."""
        finals = []
        for seed in recipe.seeds:
            final = self.final_models.find(recipe, seed)
            if final is None:
                training = yield from self._trained("final", winner, whole, seed)
                if training is None:
                    return None
                if not training.finished:
                    raise TrainingDivergedError(
                        f"the loss of the final model with seed {seed} is not finite in epoch "
                        f"{len(training.history) + 1}. The test set was not opened. Choose among more candidates "
                        "(--top-k) or with more reruns (--seeds)."
                    )
                final = self.final_models.keep(recipe, training, whole)
                self._discard_checkpoint(winner.config, seed)
                yield self._ended("final", winner, seed, None, final.seconds)
            else:
                self._number += 1
                yield self._ended("final", winner, seed, None, final.seconds, was_done=True)
            finals.append(final)
        return finals

    def _trained(
        self, stage: Stage, planned: Planned, data: SearchData, seed: int
    ) -> Generator[RetrainingEvent, None, Training | None]:
        """Train to the end or until the loss is not finite; None after a stop, with a checkpoint."""
        self._number += 1
        if self.device.type == "cpu":
            torch.set_num_threads(threads_for(planned.config))
        training = Training(planned.config, data, seed=seed, device=self.device)
        path = self._checkpoint(planned.config, seed)
        checkpoint.resume(training, path)
        yield TrainingStarted(
            stage=stage,
            number=self._number,
            total=self.plan.trainings,
            trial=planned.trial,
            seed=seed,
            epochs_done=len(training.history),
            epochs=planned.config.train.epochs,
        )
        saved_at = time.monotonic()
        try:
            for epoch in training.epochs(self._should_stop):
                yield EpochDone(epoch=epoch)
                if time.monotonic() - saved_at > CHECKPOINT_EVERY_SECONDS:
                    self._save(training, path)
                    saved_at = time.monotonic()
        except TrainingDivergedError:
            return training
        if not training.finished:
            self._save(training, path)
            return None
        return training

    def _save(self, training: Training, path: Path) -> None:
        """Save a checkpoint; without one the training would only begin anew."""
        try:
            checkpoint.save(training, path)
        except OSError as error:
            self.unsaved = str(error)
        else:
            self.unsaved = ""

    def _ended(
        self,
        stage: Stage,
        planned: Planned,
        seed: int,
        val_accuracy: float | None,
        seconds: float,
        *,
        was_done: bool = False,
    ) -> TrainingEnded:
        return TrainingEnded(
            stage=stage,
            number=self._number,
            total=self.plan.trainings,
            trial=planned.trial,
            seed=seed,
            val_accuracy=val_accuracy,
            seconds=seconds,
            was_done=was_done,
        )

    def _should_stop(self) -> bool:
        return self.signals.received is not None

    def _checkpoint(self, config: TrialConfig, seed: int) -> Path:
        return self.study.checkpoint_dir / f"retraining-{config.digest}-{seed}.pt"

    def _discard_checkpoint(self, config: TrialConfig, seed: int) -> None:
        checkpoint.discard(self._checkpoint(config, seed))


def _rerun(training: Training, split_seed: int) -> Rerun:
    last = training.history[-1] if training.finished else None
    return Rerun(
        seed=training.seed,
        split_seed=split_seed,
        val_accuracy=last.val_accuracy if last else 0.0,
        val_loss=last.val_loss if last else None,
        seconds=training.seconds,
        epochs=tuple(EpochFigures(**asdict(epoch)) for epoch in training.history),
    )
