"""The retraining of a study's best trials, up to tested final models.

The order matters. Reruns of the candidates on fresh seeds and splits choose the winner. Its recipe is frozen and
recorded. Final models are trained by it on all training images. Only then is each tested once on the test set.
The study's ledger records every step, so an interrupted retraining resumes.
"""

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kmnist_search.config import TrialConfig
from kmnist_search.data.search_data import SearchData
from kmnist_search.data.test_set import SealedSet, open_test_set
from kmnist_search.engine import checkpoint
from kmnist_search.engine.backends import uses_triton
from kmnist_search.engine.batched import BatchedTraining
from kmnist_search.engine.memory_budget import MemoryBudget
from kmnist_search.engine.replica import Replica
from kmnist_search.engine.threads import threads_for
from kmnist_search.engine.training import POLL_SECONDS
from kmnist_search.errors import TrainingDivergedError
from kmnist_search.evaluation.ledger import Ledger
from kmnist_search.evaluation.metrics import Candidate, FinalModel, FinalTraining, Opening, PairedTest, Recipe, Rerun
from kmnist_search.host.files import discard
from kmnist_search.host.signals import StopSignals
from kmnist_search.retrain.choice import candidate_figures, compared
from kmnist_search.retrain.events import RetrainingEvent, Stage, TrainingEnded, TrainingStarted, WinnerChosen
from kmnist_search.retrain.final_models import FinalModels, epoch_figures
from kmnist_search.retrain.plan import PlannedCandidate
from kmnist_search.retrain.preparation import Preparation
from kmnist_search.saved_model.info import recipe_digest

CHECKPOINT_EVERY_SECONDS = 30.0


@dataclass(frozen=True, eq=False, kw_only=True)
class RetrainingResult:
    """The result of a finished retraining.

    Attributes:
        candidates: the winner first.
        models: final models, in the order of the recipe's seeds; the first is kept.
        folders: folders of the saved models, in the same order.
        ledger: every look at the test set for this study.
        test_set: the test set.
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
        result: the result once `work` is exhausted; None if it was stopped before.
        unsaved: why the last checkpoint could not be written; empty if it was written.
    """

    def __init__(self, preparation: Preparation, signals: StopSignals) -> None:
        self.study, self.plan, self.images = preparation.study, preparation.plan, preparation.images
        self.data, self.data_dir = preparation.data, preparation.data_dir
        self.device, self.backend, self.signals = preparation.device, preparation.backend, signals
        self.ledger = Ledger(self.study)
        self.final_models = FinalModels(self.ledger, self.study.checkpoint_dir, self.data.dataset)
        self.result: RetrainingResult | None = None
        self.unsaved = ""
        self._number = 0
        self._whole = self.images.whole(self.data)

    def work(self) -> Iterator[RetrainingEvent]:
        """Choose, freeze, train and test; finished steps are not repeated.

        Raises:
            TrainingDivergedError: a final model's loss is no longer finite.
            ModelError: a final model cannot be saved.
        """
        reruns = yield from self._reruns()
        if reruns is None:
            return
        figures = [candidate_figures(*pair) for pair in zip(self.plan.candidates, reruns, strict=True)]
        ranked = sorted(
            zip(self.plan.candidates, figures, strict=True), key=lambda pair: -(pair[1].mean_val_accuracy or 0.0)
        )
        winner, candidates = ranked[0][0], tuple(candidate for _, candidate in ranked)
        paired_test = compared(*candidates[:2], val_share=self.plan.val_share) if len(candidates) > 1 else None
        yield WinnerChosen(candidates=candidates, paired_test=paired_test)
        digest = recipe_digest(winner.config, self._whole.digest)
        recipe = self.ledger.freeze(
            Recipe.frozen_now(winner.config, digest=digest, trial=winner.trial, seeds=self.plan.final_seeds)
        )
        yield recipe
        finals = yield from self._finals(winner, recipe)
        if finals is None:
            return
        test_set = open_test_set(self.data.dataset, self.data_dir)
        models = []
        for final in finals:
            tested = self.final_models.tested(recipe, final, test_set)
            models.append(tested.model)
            yield tested
        self.result = RetrainingResult(
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
        for candidate in self.plan.candidates:
            done = {seed: self.ledger.rerun(candidate.config.digest, seed) for seed in self.plan.reruns}
            yield from self._done_before(candidate, done.values())
            for seeds in self._groups(candidate.config, [seed for seed, rerun in done.items() if rerun is None]):
                splits = [self.images.split(self.plan.reruns[seed]) for seed in seeds]
                training = yield from self._trained("rerun", candidate, splits, seeds)
                if training is None:
                    return None
                for replica in training.replicas:
                    rerun = _rerun(replica, self.plan.reruns[replica.seed].split_seed)
                    self.ledger.note_rerun(candidate.config.digest, rerun)
                    done[replica.seed] = rerun
                    yield self._ended(candidate, rerun)
                discard(self._checkpoint(candidate.config, seeds))
            reruns.append([rerun for rerun in done.values() if rerun is not None])
        return reruns

    def _finals(
        self, winner: PlannedCandidate, recipe: Recipe
    ) -> Generator[RetrainingEvent, None, list[FinalTraining] | None]:
        """Return the final trainings, with their models saved, or None after a stop."""
        done = {seed: self.final_models.find(recipe, seed) for seed in recipe.seeds}
        yield from self._done_before(winner, done.values())
        for seeds in self._groups(winner.config, [seed for seed, final in done.items() if final is None]):
            training = yield from self._trained("final", winner, [self._whole] * len(seeds), seeds)
            if training is None:
                return None
            for index, seed in enumerate(seeds):
                done[seed] = final = self._kept(training, index, recipe)
                yield self._ended(winner, final)
            discard(self._checkpoint(winner.config, seeds))
        return [final for final in done.values() if final is not None]

    def _groups(self, config: TrialConfig, seeds: Sequence[int]) -> list[Sequence[int]]:
        """Return the seeds in groups that are trained together, as large as memory allows."""
        together = 1
        if uses_triton(config, self.device, self.backend):
            memory_budget = MemoryBudget(self.device)
            together = max(1, min(len(seeds), memory_budget.capacity() // memory_budget.estimate(config, self._whole)))
        return [seeds[begin : begin + together] for begin in range(0, len(seeds), together)]

    def _kept(self, training: BatchedTraining, index: int, recipe: Recipe) -> FinalTraining:
        replica = training.replicas[index]
        if not replica.finished:
            raise TrainingDivergedError(
                f"the loss of the final model with seed {replica.seed} is not finite in epoch "
                f"{len(replica.history) + 1}. The test set was not opened. Choose among more candidates "
                "(--top) or with more reruns (--seeds)."
            )
        return self.final_models.keep(recipe, replica, training.evaluated_model(index))

    def _trained(
        self, stage: Stage, candidate: PlannedCandidate, datas: Sequence[SearchData], seeds: Sequence[int]
    ) -> Generator[RetrainingEvent, None, BatchedTraining | None]:
        """Train to the end, or until no loss is finite; return None after a stop, with a checkpoint saved."""
        if self.device.type == "cpu":
            torch.set_num_threads(threads_for(candidate.config))
        training = BatchedTraining(candidate.config, datas, seeds=seeds, device=self.device, backend=self.backend)
        path = self._checkpoint(candidate.config, seeds)
        checkpoint.resume(training, path)
        yield TrainingStarted(
            stage=stage,
            number=self._number + 1,
            total=self.plan.trainings,
            trial=candidate.trial,
            seeds=tuple(seeds),
            epochs_done=max(len(replica.history) for replica in training.replicas),
            epochs=candidate.config.train.epochs,
        )
        saved_at = time.monotonic()
        while not training.finished:
            if self.signals.received is not None:
                self._save(training, path)
                return None
            if training.advance():
                if epoch := next((epoch for epoch in training.read() if epoch is not None), None):
                    yield epoch
                if time.monotonic() - saved_at > CHECKPOINT_EVERY_SECONDS:
                    self._save(training, path)
                    saved_at = time.monotonic()
            elif self.device.type == "cuda":
                time.sleep(POLL_SECONDS)
        return training

    def _save(self, training: BatchedTraining, path: Path) -> None:
        """Save a checkpoint; if that fails, a stopped training only has to start again."""
        try:
            checkpoint.save(training, path)
        except OSError as error:
            self.unsaved = str(error)
        else:
            self.unsaved = ""

    def _done_before(
        self, candidate: PlannedCandidate, trainings: Iterable[Rerun | FinalTraining | None]
    ) -> Iterator[TrainingEnded]:
        return (self._ended(candidate, each, was_done=True) for each in trainings if each is not None)

    def _ended(
        self, candidate: PlannedCandidate, training: Rerun | FinalTraining, *, was_done: bool = False
    ) -> TrainingEnded:
        self._number += 1
        return TrainingEnded(
            number=self._number,
            total=self.plan.trainings,
            trial=candidate.trial,
            training=training,
            was_done=was_done,
        )

    def _checkpoint(self, config: TrialConfig, seeds: Sequence[int]) -> Path:
        together = f"-and-{len(seeds) - 1}" if len(seeds) > 1 else ""
        return self.study.checkpoint_dir / f"retraining-{config.digest}-{seeds[0]}{together}.pt"


def _rerun(training: Replica, split_seed: int) -> Rerun:
    last = training.history[-1] if training.finished else None
    return Rerun(
        seed=training.seed,
        split_seed=split_seed,
        val_accuracy=last.val_accuracy if last else 0.0,
        val_loss=last.val_loss if last else None,
        seconds=training.seconds,
        epochs=epoch_figures(training),
    )
