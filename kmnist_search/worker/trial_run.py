"""The run of one trial from its claim to its end, one step at a time."""

import time
import traceback
from dataclasses import replace
from typing import Any

import torch
from optuna.trial import Trial, TrialState

from kmnist_search.database.trial_writer import PAUSED_KEY, REASON_KEY
from kmnist_search.engine.concurrency import epoch_cost
from kmnist_search.engine.device import is_lost, is_out_of_memory
from kmnist_search.engine.memory_estimate import GIB
from kmnist_search.engine.replica import Epoch
from kmnist_search.engine.threads import threads_for
from kmnist_search.engine.training import Training
from kmnist_search.errors import DatabaseAwayError, TrainingDivergedError
from kmnist_search.queue.queue import Claim
from kmnist_search.study.study import TRACEBACK_KEY
from kmnist_search.study_file.schema import TrainingSpec
from kmnist_search.worker.checkpoints import Checkpoints
from kmnist_search.worker.context import TrialContext
from kmnist_search.worker.events import EpochDone, Outcome, TrialEnded, TrialStarted, TrialValidated, WithinEpoch
from kmnist_search.worker.tasks import State, Steps, wait_for
from kmnist_search.worker.together import Together
from kmnist_search.worker.trial_attributes import DIVERGED, description, reason_of_failure, results
from kmnist_search.worker.trial_models import MODELS_KEY, artifact_attributes

#: A `kill -9` loses at most this much training; a checkpoint of a large net takes about 0.1 s.
CHECKPOINT_EVERY_SECONDS = 30.0
#: How often a trial within a long epoch says how far it is.
SIGN_OF_LIFE_SECONDS = 2.0
#: The constraint that a trial violates if it needs too much memory; the sampler learns from it.
MEMORY_CONSTRAINT = "memory"

GPU_LOST = "its worker lost the GPU"
LOST = "its lease ran out, or the study was deleted"
OUT_OF_MEMORY = "out of memory beside other trials"


class TrialRun:
    """Runs one trial to its end.

    Attributes:
        is_at_work: True while the training holds memory.
        epoch_cost: see `engine/concurrency.py`; set when it is at work.
        epoch_seconds: duration of the last epoch.
        ran_out_beside_others: True if the trial was handed back because memory ran out while others used it, too.
        left: how the trial was left, if its end could not be written to the database.
        lost_gpu: the error after which this process cannot use its GPU any more, if there was one.
    """

    def __init__(self, context: TrialContext, claim: Claim, together: Together | None = None) -> None:
        """Prepare the run of a claimed trial, alone or computed `together` with others."""
        self.context, self.claim, self.together = context, claim, together
        self.study, self.database_thread = context.study, context.database_thread
        self.checkpoints = Checkpoints(self.study.checkpoint_dir, claim.number, claim.attempt)
        self.is_at_work = False
        self.epoch_cost = self.epoch_seconds = 0.0
        self.ran_out_beside_others = False
        self.left = ""
        self.lost_gpu: Exception | None = None
        self._training: Training | None = None
        self._traceback = ""
        self._spec: TrainingSpec | None = None
        self._models: dict[str, Any] = {}

    def steps(self) -> Steps[None]:
        """Train the trial and end it in the study.

        Raises:
            DatabaseAwayError: the end could not be written to the database; `left` tells about the checkpoint.
        """
        trial = self.context.proposals.trial(self.claim)
        outcome: Outcome
        try:
            outcome, reason = yield from self._train(trial)
        except TrainingDivergedError as error:
            outcome, reason = "pruned", f"{DIVERGED}{error}"
        except Exception as error:  # a trial that breaks must not break the study
            outcome, reason = self._outcome_of(error)
        attributes = self._attributes("" if outcome == "paused" else reason)
        ended = self._ended(trial, outcome, reason)
        if self._traceback and self.lost_gpu is None:
            self._give_back_memory()  # before waiting for the database: others may need it
        try:
            outcome = yield from self._end(trial, ended, attributes)
        except DatabaseAwayError:
            how = ended.reason if outcome == "handed back" else "without a checkpoint"
            if self._training is not None and outcome != "handed back":
                how = _save(self.checkpoints, self._training)
            self.left = f"Trial {self.claim.number} was left {how}."
            raise
        if outcome == "paused":
            self.checkpoints.discard_earlier()
        elif outcome != "handed back" and self.lost_gpu is None:  # who takes over the trial resumes from the checkpoint
            self.checkpoints.discard(earlier=outcome != "lost")
        if outcome == "complete" and self._training is not None and self._spec is not None:
            yield TrialValidated(
                trial_id=self.claim.trial_id,
                number=self.claim.number,
                spec=self._spec,
                history=self._training.history,
                val_probabilities=self._training.val_probabilities(),
            )
        if self.is_at_work and self.lost_gpu is None:
            self._give_back_memory()
        if outcome == "lost" and self.lost_gpu is None:
            ended = replace(ended, reason=LOST)
            self.context.models.remove([entry["artifact"] for entry in self._models.values()])
        yield replace(ended, outcome=outcome)

    def _train(self, trial: Trial) -> Steps[tuple[Outcome, str]]:
        """Train until the end, a pruning, a stop, or the loss of the trial; return the outcome and its reason."""
        context, budget = self.context, self.context.memory_budget
        spec = self._spec = context.proposals.suggest(trial)
        config, data = spec.config, context.data.of(spec.data)
        if context.device.type == "cpu":
            torch.set_num_threads(threads_for(config, context.cores))
        seed = self.study.training_seed(self.claim.number) if spec.seed is None else spec.seed
        for key, value in description(config, data.digest, seed, context.device).items():
            trial.set_user_attr(key, value)
        needed, most = budget.estimate(config, data), budget.capacity()
        if self.together is not None:
            needed = 0 if self.together.is_built else needed * self.together.size
        if needed > most:
            trial.set_constraint(MEMORY_CONSTRAINT, (needed - most) / GIB)
            return "pruned", f"infeasible: {budget.excess_text(needed)}"
        while needed and not budget.fits(needed):
            if self.database_thread.has_lost(self.claim):
                return "lost", LOST
            if context.stop.why_hand_back:
                return "handed back", "before its training started"
            yield State.IDLE
        budget.reserve(self.claim.trial_id, needed)
        self.is_at_work = True
        self.epoch_cost = epoch_cost(config, len(data.train_images))
        if self.together is None:
            keeps_best = "best" in spec.keeps
            training = Training(config, data, seed=seed, device=context.device, keeps_best=keeps_best)
        else:
            training = self.together.training(self.claim)
        self._training = training
        self._resume(trial, training)
        yield TrialStarted(number=trial.number, params=trial.params, epochs_done=len(training.history))
        outcome, reason = yield from self._epochs(trial, training)
        if outcome == "complete":
            for which in spec.keeps:
                before = [f"{attempt['token']}-{which}" for attempt in self.claim.attempts[:-1]]
                context.models.remove(before)  # of attempts that were killed before they were recorded
                artifact_id = f"{self.claim.token}-{which}"
                self._models[which] = context.models.keep(training, which, spec.data.dataset, artifact_id)
        return outcome, reason

    def _resume(self, trial: Trial, training: Training) -> None:
        self.checkpoints.resume(training)
        for epoch in training.history:  # the claim deleted the reports: they must agree with the checkpoint
            trial.report(self._metric(epoch), step=epoch.number)
            trial.should_prune()

    def _epochs(self, trial: Trial, training: Training) -> Steps[tuple[Outcome, str]]:
        # A CPU can take its next step at once; a GPU has enough queued for a while.
        state = State.READY if self.context.device.type == "cpu" else State.IDLE
        saved_at = told_at = time.monotonic()
        while not training.finished:
            if self.database_thread.has_lost(self.claim):
                return "lost", LOST
            if self.context.stop.why_hand_back:
                return "handed back", _save(self.checkpoints, training)
            if not training.advance():
                yield state
                if time.monotonic() - told_at > SIGN_OF_LIFE_SECONDS:
                    told_at = time.monotonic()
                    yield WithinEpoch(number=trial.number, share=training.share_of_epoch)
                continue
            told_at = time.monotonic()
            before = training.seconds
            epoch = training.read()
            self.epoch_seconds = training.seconds - before
            trial.report(self._metric(epoch), step=epoch.number)
            yield EpochDone(number=trial.number, epoch=epoch)
            if not training.finished and trial.should_prune():
                return "pruned", f"by the pruner after epoch {epoch.number}"
            if not training.finished and self._pauses(epoch.number):
                return "paused", f"after epoch {epoch.number}, {_save(self.checkpoints, training)}"
            if time.monotonic() - saved_at > CHECKPOINT_EVERY_SECONDS:
                _save(self.checkpoints, training)
                saved_at = time.monotonic()
        return "complete", ""

    def _pauses(self, epoch: int) -> bool:
        """Return whether the trial pauses after an epoch because others are ahead."""
        halving, storage = self.context.proposals.halving, self.context.proposals.cached_storage
        if halving is None or epoch not in halving.rungs:
            return False
        trials = storage.get_all_trials(storage.study_id, deepcopy=False)
        return not halving.passes(trials, self.claim.trial_id, epoch)

    def _outcome_of(self, error: Exception) -> tuple[Outcome, str]:
        self._traceback = traceback.format_exc()
        if is_lost(error):
            # The first trial to see it may be the cause: it counts as a loss, and fails after too many of them.
            is_first, self.lost_gpu = not self.context.stop.why, error
            self.context.stop.request(GPU_LOST)
            return ("lost", GPU_LOST) if is_first else ("handed back", GPU_LOST)
        self.context.stop.check()
        if self.context.stop.by == "signal":  # Ctrl-C also reaches a compiler that this process has started
            return "handed back", f"without a checkpoint: {type(error).__name__}: {error}"
        if is_out_of_memory(error) and (self.together is not None or self.context.memory_budget.is_shared()):
            self.ran_out_beside_others = True
            return "handed back", OUT_OF_MEMORY
        return "failed", reason_of_failure(error)

    def _ended(self, trial: Trial, outcome: Outcome, reason: str) -> TrialEnded:
        training = self._training
        history = training.history if training else []
        return TrialEnded(
            number=trial.number,
            params=trial.params,
            outcome=outcome,
            value=self._metric(history[-1]) if history else None,
            reason=reason,
            epochs=len(history),
            seconds=training.seconds_so_far if training else 0.0,
        )

    def _attributes(self, reason: str) -> dict[str, Any]:
        attributes = results(self._training) if self._training else {}
        others = {MODELS_KEY: self._models, REASON_KEY: reason, TRACEBACK_KEY: self._traceback}
        return {**attributes, **{key: value for key, value in others.items() if value}}

    def _end(self, trial: Trial, ended: TrialEnded, attributes: dict[str, Any]) -> Steps[Outcome]:
        """End the trial in the study; return the outcome, which is "lost" if this worker had lost it."""
        if ended.outcome == "lost" and self.lost_gpu is not None:
            return "lost"  # the lease ends with this process, which counts as a loss
        if self.database_thread.has_lost(self.claim):
            self.database_thread.abandon(self.claim)
            return "lost"
        if ended.outcome == "handed back":
            why = self.context.stop.why_hand_back or "the study was paused"  # and is resumed by now
            if self.ran_out_beside_others:
                why = ended.reason
            kept = yield from wait_for(self.database_thread.hand_back(self.claim, epochs=ended.epochs, reason=why))
            return "handed back" if kept else "lost"
        for key, value in attributes.items():
            trial.set_user_attr(key, value)
        for key, value in artifact_attributes(self._models, self.claim.number):
            self.context.proposals.cached_storage.set_trial_system_attr(self.claim.trial_id, key, value)
        if ended.outcome == "paused":
            storage = self.context.proposals.cached_storage
            storage.set_trial_system_attr(self.claim.trial_id, PAUSED_KEY, ended.epochs)
        if ended.outcome == "complete":
            trial.study.tell(trial, ended.value)
        else:
            trial.study.tell(trial, state=TrialState.FAIL if ended.outcome == "failed" else TrialState.PRUNED)
        kept = yield from wait_for(self.database_thread.finish(self.claim, epochs=ended.epochs))
        return ended.outcome if kept else "lost"

    def _give_back_memory(self) -> None:
        self._training = None
        self.is_at_work = False
        self.context.memory_budget.release(self.claim.trial_id)
        self.context.memory_budget.clean_up(after_error=bool(self._traceback))

    def _metric(self, epoch: Epoch) -> float:
        return float(getattr(epoch, self.study.metric))


def _save(checkpoints: Checkpoints, training: Training) -> str:
    """Save a checkpoint and return how that went; without one, the trial only starts again."""
    try:
        checkpoints.save(training)
    except OSError as error:
        return f"without a checkpoint: {error}"
    return f"with a checkpoint at step {training.step:,}"
