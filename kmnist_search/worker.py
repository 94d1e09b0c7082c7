"""Claim trials, train them, report them, end them. Knows nothing of terminals.

`Worker.work` is a generator of events: what happens is told to whoever drives it, and nothing is called back.
"""

import platform
import time
import traceback
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import Trial

from kmnist_search import cost
from kmnist_search.data.search_data import SearchData
from kmnist_search.engine import checkpoint
from kmnist_search.engine.threads import threads_for
from kmnist_search.engine.training import Epoch, Training
from kmnist_search.errors import TrainingDivergedError, TrialsKeepFailingError
from kmnist_search.events import EpochDone, Event, Outcome, StoppedBy, TrialEnded, TrialStarted
from kmnist_search.queue import Owner
from kmnist_search.signals import StopSignals
from kmnist_search.storage import DATABASE_ERRORS
from kmnist_search.study import SearchStudy
from kmnist_search.study_file import StudyFile

#: So many failures in a row are not the trials' fault.
FAILURES_IN_A_ROW = 5
#: After a `kill -9` at most this much training is lost; a checkpoint of a large net takes about 0.1 s.
CHECKPOINT_EVERY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a worker stops claiming: `budget` trials in the study, `seconds` from now, a metric of `target`."""

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
        *,
        device: torch.device,
        limits: Limits,
        signals: StopSignals,
    ) -> None:
        self.study, self.file, self.device, self.limits, self.signals = study, file, device, limits, signals
        self.data = data.to(device)
        self.owner = Owner.this_process()
        self.deadline = time.monotonic() + limits.seconds if limits.seconds is not None else None
        self.stopped_by: StoppedBy = "budget"
        self._failures_in_a_row = 0

    def work(self) -> Iterator[Event]:
        """Run trials until a limit is reached, a signal comes, or none is left to claim.

        Raises:
            TrialsKeepFailingError: one trial after another failed.
        """
        while (trial := self._claim()) is not None:
            yield from self._run(trial)

    def _claim(self) -> Trial | None:
        """Take the next trial, or None after noting why there is no next one."""
        self.study.queue.recover()
        if self.study.queue.counts().finished >= self.limits.budget:
            self.stopped_by = "budget"
            return None
        if self._should_stop():
            self.stopped_by = "signal" if self.signals.received else "timeout"
            return None
        if self.limits.target is not None and self.study.reached(self.limits.target):
            self.stopped_by = "target"
            return None
        trial = self.study.claim(self.owner, self.file, budget=self.limits.budget)
        if trial is None:
            self.stopped_by = "queue"
        return trial

    def _should_stop(self) -> bool:
        return self.signals.received is not None or (self.deadline is not None and time.monotonic() > self.deadline)

    def _run(self, trial: Trial) -> Iterator[Event]:
        """Train one trial and see it to its end, whatever that is."""
        training, broken = None, ""
        try:
            config = self.file.suggest(trial)
            if self.device.type == "cpu":
                torch.set_num_threads(threads_for(config))
            training = Training(config, self.data, seed=self.study.training_seed(trial.number), device=self.device)
            outcome, reason = yield from self._train(trial, training)
        except TrainingDivergedError as error:
            outcome, reason = "pruned", f"diverged: {error}"
        except DATABASE_ERRORS:  # no fault of the trial, which the next run takes up
            raise
        except Exception as error:  # whatever breaks a trial must not break the study
            outcome, reason, broken = "failed", f"{type(error).__name__}: {error}", traceback.format_exc()
        self._end(trial, training, outcome, reason, broken)
        history = training.history if training else []
        yield TrialEnded(
            number=trial.number,
            outcome=outcome,
            value=self._metric(history[-1]) if history else None,
            reason=reason,
            epochs=len(history),
            seconds=training.seconds if training else 0.0,
        )
        self._give_up_if_all_fail(trial.number, outcome, reason)

    def _train(self, trial: Trial, training: Training) -> Generator[Event, None, tuple[Outcome, str]]:
        """Train to the end, the pruner's no, or a stop; return which of them it was, and why."""
        checkpoint.resume(training, self._checkpoint_path(trial))
        for epoch in training.history:  # claiming a trial wiped its reports, so that they agree with the checkpoint
            trial.report(self._metric(epoch), step=epoch.number)
            trial.should_prune()
        self.study.queue.set_attributes(trial._trial_id, self._attributes(training))
        yield TrialStarted(
            number=trial.number,
            params=trial.params,
            num_parameters=cost.num_parameters(training.config.model),
            epochs_done=len(training.history),
        )
        saved_at = time.monotonic()
        for epoch in training.epochs(self._should_stop):
            trial.report(self._metric(epoch), step=epoch.number)
            yield EpochDone(number=trial.number, epoch=epoch)
            if not training.finished and trial.should_prune():
                return "pruned", f"by the pruner after epoch {epoch.number}"
            if time.monotonic() - saved_at > CHECKPOINT_EVERY_SECONDS:
                self._save(trial, training)
                saved_at = time.monotonic()
        return ("complete", "") if training.finished else ("handed back", self._save(trial, training))

    def _end(self, trial: Trial, training: Training | None, outcome: Outcome, reason: str, broken: str) -> None:
        attributes = _results(training) if training else {}
        match outcome:
            case "complete":
                assert training is not None
                self.study.complete(trial, self._metric(training.history[-1]), attributes)
            case "pruned":
                self.study.prune(trial, reason, attributes)
            case "failed":
                self.study.fail(trial, reason, broken, attributes)
            case "handed back":
                self.study.queue.hand_back(trial._trial_id)
                return
        checkpoint.discard(self._checkpoint_path(trial))

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

    def _checkpoint_path(self, trial: Trial) -> Path:
        return self.study.storage.checkpoint_dir / f"{self.study.name}-{trial.number}.pt"

    def _save(self, trial: Trial, training: Training) -> str:
        """Save a checkpoint and return what became of it; without one the trial would only begin anew."""
        try:
            checkpoint.save(training, self._checkpoint_path(trial))
        except OSError as error:
            return f"without a checkpoint: {error}"
        return f"with a checkpoint at step {training.step:,}"

    def _attributes(self, training: Training) -> dict[str, Any]:
        config = training.config
        return {
            "config": config.model_dump(mode="json"),
            "config_digest": config.digest,
            "num_parameters": cost.num_parameters(config.model),
            "flops_per_image": cost.flops_per_image(config.model),
            "seed": training.seed,
            "device": _device_name(self.device),
            "versions": {
                "kmnist-search": version("kmnist-search"),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "optuna": optuna.__version__,
            },
        }


def _results(training: Training) -> dict[str, Any]:
    """Return the curves so far and what they cost, as user attributes."""
    curves = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    return {
        **{f"{curve}_curve": [getattr(epoch, curve) for epoch in training.history] for curve in curves},
        "seconds": training.seconds,
        "images_per_second": training.images_trained / training.seconds if training.seconds else None,
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, threads: {torch.get_num_threads()}"
