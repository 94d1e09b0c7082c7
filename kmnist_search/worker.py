"""Claim trials, train them, report them, end them. Knows nothing of terminals.

`Worker.work` is a generator of events: what happens is told to whoever drives it, and nothing is called back. The
database is talked to by a courier; the worker waits for it only between two trials.
"""

import gc
import time
import traceback
from collections.abc import Generator, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TypeVar

import torch
from optuna.trial import Trial, TrialState

from kmnist_search import cost
from kmnist_search.checkpoints import Checkpoints
from kmnist_search.courier import Courier
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine.threads import threads_for
from kmnist_search.engine.training import Epoch, Training
from kmnist_search.errors import DatabaseAwayError, TrainingDivergedError, TrialsKeepFailingError
from kmnist_search.events import (
    DatabaseAway,
    DatabaseBack,
    EpochDone,
    Event,
    Outcome,
    StoppedBy,
    Stopping,
    TrialEnded,
    TrialStarted,
)
from kmnist_search.patience import HURRY_SECONDS, Trouble
from kmnist_search.queue import Claim
from kmnist_search.signals import StopSignals
from kmnist_search.study import TRACEBACK_KEY, SearchStudy
from kmnist_search.study_file import StudyFile
from kmnist_search.trial_facts import description, reason_of_failure, results
from kmnist_search.trial_writer import REASON_KEY

#: So many failures in a row are not the trials' fault.
FAILURES_IN_A_ROW = 5
#: After a `kill -9` at most this much training is lost; a checkpoint of a large net takes about 0.1 s.
CHECKPOINT_EVERY_SECONDS = 30.0

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a worker stops: `budget` trials in the study, `seconds` from now, a metric of `target`."""

    budget: int
    seconds: float | None = None
    target: float | None = None


class Worker:
    """One process that works on one study on one device.

    Attributes:
        stopped_by: after `work` is exhausted, why: "budget", "queue" (nothing is left to claim, but others still run),
            "signal", "timeout" or "target".
    """

    def __init__(
        self,
        study: SearchStudy,
        file: StudyFile,
        data: SearchData,
        courier: Courier,
        *,
        device: torch.device,
        limits: Limits,
        signals: StopSignals,
    ) -> None:
        self.study, self.file, self.courier = study, file, courier
        self.device, self.limits, self.signals = device, limits, signals
        self.data = data.to(device)
        self.deadline = time.monotonic() + limits.seconds if limits.seconds is not None else None
        self.stopped_by: StoppedBy = "budget"
        self._failures_in_a_row = 0
        self._trouble: Trouble | None = None

    def work(self) -> Iterator[Event]:
        """Run trials until a limit is reached, a signal comes, or none is left to claim.

        Raises:
            TrialsKeepFailingError: one trial after another failed.
            DatabaseAwayError: the database could not be used for too long; the trial at work has a checkpoint.
        """
        with self.courier:
            while (claim := (yield from self._claim())) is not None:
                yield from self._run(claim)

    def _claim(self) -> Generator[Event, None, Claim | None]:
        """Take the next trial, or None after noting why there is no next one."""
        if self.courier.failure is not None:
            raise self.courier.failure
        if self.courier.counts.finished >= self.limits.budget:
            self.stopped_by = "budget"
            return None
        if self._should_stop():
            self.stopped_by = "signal" if self.signals.received else "timeout"
            return None
        if self.limits.target is not None and (yield from self._is_reached(self.limits.target)):
            self.stopped_by = "target"
            return None
        claim = yield from self._waited(self.courier.claim(budget=self.limits.budget))
        if claim is None:
            self.stopped_by = "budget" if self.courier.counts.finished >= self.limits.budget else "queue"
        return claim

    def _is_reached(self, target: float) -> Generator[Event, None, bool]:
        mirror = self.courier.mirror
        yield from self._waited(self.courier.refresh())
        best = self.study.ranked(mirror.get_all_trials(mirror.study_id, deepcopy=False))[:1]
        return bool(best) and self.study.is_as_good(best[0].values[0], target)

    def _should_stop(self) -> bool:
        return (
            self.signals.received is not None
            or self.courier.failure is not None
            or (self.deadline is not None and time.monotonic() > self.deadline)
        )

    def _waited(self, future: "Future[Result]") -> Generator[Event, None, Result]:
        """Wait for the courier, and tell meanwhile if the database is away.

        Raises:
            DatabaseAwayError: it was away for too long, or is when there is no more time to wait.
        """
        give_up_at = None
        while not future.done():
            wait([future], timeout=0.1)
            yield from self._trouble_told()
            if give_up_at is None and self._should_stop() and not future.done():
                yield Stopping(seconds=HURRY_SECONDS)
                self.courier.patience.hurry()
                give_up_at = time.monotonic() + HURRY_SECONDS + 0.5
            if give_up_at is not None and time.monotonic() > give_up_at and not future.done():
                trouble = self.courier.patience.trouble
                reason = trouble.reason if trouble else "no answer"
                raise DatabaseAwayError(f"{self.study.storage.shown_url} cannot be used: {reason}.")
        return future.result()

    def _trouble_told(self) -> Iterator[Event]:
        """Tell, once each, that the database went away and that it came back."""
        before, self._trouble = self._trouble, self.courier.patience.trouble
        if before is None and self._trouble is not None:
            yield DatabaseAway(reason=self._trouble.reason)
        elif before is not None and self._trouble is None:
            yield DatabaseBack(seconds=time.monotonic() - before.since)

    def _run(self, claim: Claim) -> Iterator[Event]:
        """Train one trial and see it to its end, whatever that is."""
        trial = self.study.trial(self.courier.mirror, claim, self.file)
        checkpoints = Checkpoints(self.study.checkpoint_dir, trial.number, claim.attempt)
        training, broken = None, ""
        try:
            config = self.file.suggest(trial)
            if self.device.type == "cpu":
                torch.set_num_threads(threads_for(config))
            training = Training(config, self.data, seed=self.study.training_seed(trial.number), device=self.device)
            outcome, reason = yield from self._train(claim, trial, training, checkpoints)
        except TrainingDivergedError as error:
            outcome, reason = "pruned", f"diverged: {error}"
        except Exception as error:  # whatever breaks a trial must not break the study
            outcome, reason, broken = "failed", reason_of_failure(error), traceback.format_exc()
        try:
            outcome = yield from self._end(claim, trial, training, outcome, reason, broken)
        except DatabaseAwayError as error:
            left = _save(checkpoints, training) if training and not broken else "without a checkpoint"
            raise DatabaseAwayError(
                f"{error}\nTrial {trial.number} was left {left}. It goes back to the queue when its lease runs out, "
                f"{self.courier.lease_seconds:g} s after the database was last told of it. When the database is back, "
                "start the same command again."
            ) from error
        if outcome == "lost":
            checkpoints.discard_own()
        elif outcome != "handed back":
            checkpoints.discard()
        history = training.history if training else []
        yield TrialEnded(
            number=trial.number,
            outcome=outcome,
            value=self._metric(history[-1]) if history else None,
            reason=reason,
            epochs=len(history),
            seconds=training.seconds if training else 0.0,
        )
        if outcome == "failed":
            del training
            _free_memory()
        self._give_up_if_all_fail(trial.number, outcome, reason)

    def _train(
        self, claim: Claim, trial: Trial, training: Training, checkpoints: Checkpoints
    ) -> Generator[Event, None, tuple[Outcome, str]]:
        """Train to the end, the pruner's no, a stop, or the loss of the trial; return which of them it was, and why."""
        checkpoints.resume(training)
        for epoch in training.history:  # claiming a trial wiped its reports, so that they agree with the checkpoint
            trial.report(self._metric(epoch), step=epoch.number)
            trial.should_prune()
        for key, value in description(training, self.device).items():
            trial.set_user_attr(key, value)
        yield TrialStarted(
            number=trial.number,
            params=trial.params,
            num_parameters=cost.num_parameters(training.config.model),
            epochs_done=len(training.history),
        )
        saved_at = time.monotonic()
        for epoch in training.epochs(lambda: self._should_stop() or self.courier.has_lost(claim)):
            trial.report(self._metric(epoch), step=epoch.number)
            yield EpochDone(number=trial.number, epoch=epoch)
            yield from self._trouble_told()
            if not training.finished and trial.should_prune():
                return "pruned", f"by the pruner after epoch {epoch.number}"
            if time.monotonic() - saved_at > CHECKPOINT_EVERY_SECONDS:
                _save(checkpoints, training)
                saved_at = time.monotonic()
        if training.finished:
            return "complete", ""
        if self.courier.has_lost(claim):
            return "lost", "it is no longer this worker's: its lease ran out, or the study was deleted"
        return "handed back", _save(checkpoints, training)

    def _end(
        self, claim: Claim, trial: Trial, training: Training | None, outcome: Outcome, reason: str, broken: str
    ) -> Generator[Event, None, Outcome]:
        """End the trial in the study; return how it really ended, which is "lost" if it was no longer ours."""
        if self.courier.has_lost(claim):
            self.courier.abandon(claim)
            return "lost"
        epochs = len(training.history) if training else 0
        if outcome == "handed back":
            why = self.signals.received.name if self.signals.received else "time is up"
            kept = yield from self._waited(self.courier.hand_back(claim, epochs=epochs, reason=why))
            return outcome if kept else "lost"
        attributes = results(training) if training else {}
        if reason:
            attributes[REASON_KEY] = reason
        if broken:
            attributes[TRACEBACK_KEY] = broken
        for key, value in attributes.items():
            trial.set_user_attr(key, value)
        if outcome == "complete":
            assert training is not None
            trial.study.tell(trial, self._metric(training.history[-1]))
        else:
            trial.study.tell(trial, state=TrialState.PRUNED if outcome == "pruned" else TrialState.FAIL)
        ended = yield from self._waited(self.courier.finish(claim, epochs=epochs))
        return outcome if ended else "lost"

    def _give_up_if_all_fail(self, number: int, outcome: Outcome, reason: str) -> None:
        self._failures_in_a_row = self._failures_in_a_row + 1 if outcome == "failed" else 0
        if self._failures_in_a_row == FAILURES_IN_A_ROW:
            raise TrialsKeepFailingError(
                f"{FAILURES_IN_A_ROW} trials in a row failed, the last (number {number}) with\n  {reason}\n"
                "so the run was ended; the trials not yet tried wait in the queue. "
                "The tracebacks: kmnist-search status --json"
            )

    def _metric(self, epoch: Epoch) -> float:
        return float(getattr(epoch, self.study.metric))


def _save(checkpoints: Checkpoints, training: Training) -> str:
    """Save a checkpoint and return what became of it; without one the trial would only begin anew."""
    try:
        checkpoints.save(training)
    except OSError as error:
        return f"without a checkpoint: {error}"
    return f"with a checkpoint at step {training.step:,}"


def _free_memory() -> None:
    """Give back what a broken trial held: the frames of its error keep its tensors until they are collected."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
