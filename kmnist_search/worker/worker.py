"""The worker: trains several trials in turn until a limit is reached.

`Worker.work` is a generator of events; there are no callbacks. A database thread does the database work; the worker
waits for it only when no trial can continue.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from kmnist_search.database.retry import HURRY_SECONDS, Outage
from kmnist_search.engine.concurrency import Concurrency
from kmnist_search.engine.device import first_line
from kmnist_search.errors import DatabaseAwayError, DeviceLostError, TrialsKeepFailingError
from kmnist_search.queue.queue import Claim
from kmnist_search.study.patience import trials_since_best
from kmnist_search.worker.context import TrialContext
from kmnist_search.worker.events import (
    DatabaseAway,
    DatabaseBack,
    EpochDone,
    Event,
    RunWarning,
    Stopping,
    TrialEnded,
    Waiting,
)
from kmnist_search.worker.stop import Limits, StoppedBy, Waits
from kmnist_search.worker.tasks import State, Steps, Task, wait_for
from kmnist_search.worker.together import Together, room_beside
from kmnist_search.worker.trial_run import TrialRun

#: This many failures in a row are not the trials' fault.
FAILURES_IN_A_ROW = 5
#: How long the worker sleeps when all its trials wait for a GPU: a hundredth of the work queued there.
IDLE_SECONDS = 0.0005
#: How often a worker without trials tries to claim one, by what it waits for; each try is two transactions.
CLAIM_SECONDS: dict[Waits, float] = {"never": math.inf, "for others": 1.0, "forever": 5.0}
#: A stopping run reports that it waits for the database only after this time.
ANSWER_SECONDS = 0.1


class Worker:
    """Trains trials of one study on one device, in this process.

    Attributes:
        stopped_by: why the work ended, set at its end: "budget", "queue" (nothing is left to claim, but others still
            run), "signal", "timeout", "target", "patience", "max_trials", "command" (the study was stopped,
            from anywhere) or "elsewhere" (trials of another study wait).
    """

    def __init__(
        self,
        context: TrialContext,
        limits: Limits,
        concurrency: Concurrency,
        add_what_follows: Callable[[], Sequence[str]] = tuple,
        is_wanted_elsewhere: Callable[[], bool] = bool,
    ) -> None:
        """Prepare the worker; `work` does something.

        Args:
            context: of its trials.
            limits: when to stop.
            concurrency: how many trials to train at a time.
            add_what_follows: called when all trials are finished: adds those that follow from them to the queue, and
                returns what to tell about that.
            is_wanted_elsewhere: called when a worker that waits forever finds nothing: whether trials of another study
                wait for it.
        """
        self.context, self.limits, self.concurrency = context, limits, concurrency
        self.add_what_follows, self.is_wanted_elsewhere = add_what_follows, is_wanted_elsewhere
        self.study, self.database_thread, self.stop = context.study, context.database_thread, context.stop
        self.stopped_by: StoppedBy = "budget"
        self._tasks: list[Task] = []
        self._runs: dict[int, TrialRun] = {}  # by the number of the trial
        self._left: list[str] = []
        self._claim_at = 0.0  # not before this time
        self._may_come_more = self._is_out_of_patience = False
        self._finished = 0
        self._is_idle = False
        self._failures_in_a_row = 0
        self._outage: Outage | None = None
        self._answered_at = 0.0
        self._is_in_a_hurry = False
        self._error: Exception | None = None

    def work(self) -> Generator[Event, None, None]:
        """Run trials until a limit is reached, a signal comes, or none is left to claim.

        Unfinished trials always go back to the queue with a checkpoint.

        Raises:
            TrialsKeepFailingError: one trial after another failed.
            DatabaseAwayError: the database was away for too long; running trials have left a checkpoint.
            DeviceLostError: this process cannot use its GPU any more; another process may.
        """
        with self.database_thread:
            while True:
                self._check_stop()
                if self.database_thread.failure is not None:
                    self.stop.request("the database failed")
                if self._wants_another():
                    self._tasks.append(Task(self._trial()))
                if self._tasks:
                    yield from self._round()
                elif self._stays():
                    if not self._is_idle:
                        self._is_idle = True
                        yield Waiting(is_paused=self.stop.is_paused)
                    time.sleep(0.1)
                else:
                    break
            self._conclude()

    def _check_stop(self) -> None:
        """Take in signals, the deadline, and whether the study was halted."""
        self.stop.check()
        halt = self.database_thread.halt
        self.stop.is_paused = halt == "paused"
        if halt == "stopped":
            self.stop.request("the study was stopped", by="command")

    def _stays(self) -> bool:
        """Return whether to wait while there is nothing to do."""
        return self._may_come_more and not self.stop.why and not self._has_done_its_share()

    def _has_done_its_share(self) -> bool:
        return self.limits.max_trials is not None and self._finished + len(self._runs) >= self.limits.max_trials

    def _wants_another(self) -> bool:
        """Return whether to claim a trial. Claims come one at a time, so that each proposal knows the earlier ones.

        No trial is claimed while one waits for memory. After a claim that found none, the next one waits until a trial
        here has ended or `CLAIM_SECONDS` are over.
        """
        if self.stop.why or time.monotonic() < self._claim_at or len(self._tasks) >= self.concurrency.limit:
            return False
        if self._has_done_its_share():
            return False
        return len(self._runs) == len(self._tasks) and all(trial_run.is_at_work for trial_run in self._runs.values())

    def _trial(self) -> Steps[None]:
        """Claim a trial and run it to its end."""
        claim = yield from self._claim()
        if claim is None and not self.stop.why and not self.database_thread.counts.unfinished:
            for text in self.add_what_follows():
                yield RunWarning(text=text)
            claim = yield from self._claim()
        if claim is None:
            counts = self.database_thread.counts
            may_come_back, waits = counts.running > 0, self.limits.waits
            if self.database_thread.halt == "paused" and not counts.reach(self.limits.budget):
                waits = "forever"
            elif self._is_out_of_patience:
                waits = "for others"  # what runs may be a new best
            else:
                may_come_back = may_come_back or counts.claimable(self.limits.budget)
            self._may_come_more = waits == "forever" or (waits == "for others" and may_come_back)
            seconds = min(CLAIM_SECONDS[waits], self.database_thread.lease_seconds / 4)  # else it seems gone
            self._claim_at = time.monotonic() + (seconds if self._may_come_more else math.inf)
            if self.limits.waits == "forever" and len(self._tasks) == 1 and self.is_wanted_elsewhere():
                self.stop.request("trials of another study wait", by="elsewhere")
            return
        self._is_idle = False
        most = room_beside(self.context, claim)
        twins = (yield from wait_for(self.database_thread.claim_twins(claim, most=most))) if most else []
        together = Together(self.context, [claim, *twins]) if twins else None
        self._tasks += [Task(self._run(twin, together)) for twin in twins]
        yield from self._run(claim, together)

    def _run(self, claim: Claim, together: Together | None) -> Steps[None]:
        """Run a claimed trial to its end."""
        trial_run = self._runs[claim.number] = TrialRun(self.context, claim, together)
        try:
            yield from trial_run.steps()
            if trial_run.ran_out_beside_others:
                self.concurrency.out_of_memory(self._at_work() + 1)
            if (error := trial_run.lost_gpu) is not None:
                lost = error if isinstance(error, DeviceLostError) else DeviceLostError(first_line(error))
                self._error = self._error or lost
        finally:
            if together is not None:
                together.leave(claim)
            if self._runs.get(claim.number) is trial_run:  # else it was handed back and claimed here again meanwhile
                del self._runs[claim.number]
            if trial_run.left:
                self._left.append(trial_run.left)

    def _claim(self) -> Steps[Claim | None]:
        budget, halving = self.limits.budget, self.database_thread.halving
        if halving is None and budget is not None and self.database_thread.counts.finished >= budget:
            return None
        if self.limits.target is not None or self.limits.patience is not None:
            yield from wait_for(self.database_thread.refresh())
        if self._is_target_reached():
            self.stop.request("the target is reached", by="target")
            return None
        self._is_out_of_patience = self._patience_is_over()
        if self._is_out_of_patience:
            yield from wait_for(self.database_thread.recount())
            return None
        return (yield from wait_for(self.database_thread.claim(budget=budget)))

    def _is_target_reached(self) -> bool:
        if (target := self.limits.target) is None:
            return False
        best = self.study.ranked(self._trials())[:1]
        return bool(best) and self.study.is_as_good(best[0].values[0], target)

    def _patience_is_over(self) -> bool:
        maximizes = self.study.direction == StudyDirection.MAXIMIZE
        patience = self.limits.patience
        return patience is not None and trials_since_best(self._trials(), maximizes=maximizes) >= patience

    def _trials(self) -> Sequence[FrozenTrial]:
        cached_storage = self.database_thread.cached_storage
        return cached_storage.get_all_trials(cached_storage.study_id, deepcopy=False)

    def _round(self) -> Iterator[Event]:
        """Let each task take a step; rest if none could."""
        steps = []
        for task in self._tasks:
            steps.append(step := self._step(task))
            if not isinstance(step, State):
                self._record(step)
                yield step
        yield from self._database_events()
        yield from self._give_up_database()
        self._tasks = [task for task in self._tasks if not task.is_over]
        if all(step is State.WAITING for step in steps):
            wait([task.awaited for task in self._tasks if task.awaited], timeout=0.1, return_when=FIRST_COMPLETED)
        elif all(step in (State.WAITING, State.IDLE) for step in steps):
            time.sleep(IDLE_SECONDS)

    def _step(self, task: Task, error: Exception | None = None) -> Event | State:
        if task.awaited is not None and task.awaited.done():
            self._answered_at = time.monotonic()
        try:
            return task.step(error)
        except Exception as unexpected:  # the other tasks must still hand their trials back
            self._error = self._error or unexpected
            self.stop.request("the run failed")
            return State.READY

    def _record(self, event: Event) -> None:
        match event:
            case EpochDone():
                trial_run = self._runs[event.number]
                self.concurrency.epoch_done(
                    trial_run.epoch_cost, seconds=trial_run.epoch_seconds, active=self._at_work(), now=time.monotonic()
                )
            case TrialEnded():
                self._claim_at = 0.0
                self._finished += event.outcome in ("complete", "paused", "pruned", "failed")
                self._give_up_if_all_fail(event)

    def _at_work(self) -> int:
        return sum(trial_run.is_at_work for trial_run in self._runs.values())

    def _database_events(self) -> Iterator[Event]:
        """Report once that the database went away, and once that it came back."""
        before, self._outage = self._outage, self.database_thread.retry.outage
        if before is None and self._outage is not None:
            yield DatabaseAway(reason=self._outage.reason)
        elif before is not None and self._outage is None:
            yield DatabaseBack(seconds=time.monotonic() - before.since)

    def _give_up_database(self) -> Iterator[Event]:
        """Wait a little longer for a silent database when a stop is urgent, then give up."""
        waiting = [task for task in self._tasks if task.is_waiting]
        if not waiting:
            return
        # The time before the request does not count: saving a checkpoint of gigabytes may take longer.
        asked_at = min(task.waits_since for task in waiting)
        silence = time.monotonic() - max(self.stop.urgent_at, self._answered_at, asked_at)
        if silence < ANSWER_SECONDS:
            return
        if not self._is_in_a_hurry:
            self._is_in_a_hurry = True
            yield Stopping(seconds=HURRY_SECONDS)
            self.database_thread.retry.hurry()
        if silence > ANSWER_SECONDS + HURRY_SECONDS + 0.5:
            outage = self.database_thread.retry.outage
            reason = outage.reason if outage else "no answer"
            for task in waiting:
                self._step(task, DatabaseAwayError(f"{self.study.storage.shown_url} cannot be used: {reason}."))

    def _give_up_if_all_fail(self, ended: TrialEnded) -> None:
        self._failures_in_a_row = self._failures_in_a_row + 1 if ended.outcome == "failed" else 0
        if self._failures_in_a_row == FAILURES_IN_A_ROW:
            self._error = self._error or TrialsKeepFailingError(
                f"{FAILURES_IN_A_ROW} trials in a row failed, the last (number {ended.number}) with\n  {ended.reason}\n"
                "so the run stopped; the trials not yet tried wait in the queue. "
                "The tracebacks: kmnist-search status --json"
            )
            self.stop.request("one trial after another failed")

    def _conclude(self) -> None:
        """Raise the error that ended the work, or set `stopped_by`."""
        if isinstance(self._error, DatabaseAwayError) and self._left:
            raise DatabaseAwayError(
                f"{self._error}\n{' '.join(self._left)} A trial goes back to the queue when its lease runs out, "
                f"{self.database_thread.lease_seconds:g} s after its last renewal. "
                "When the database is back, repeat the command."
            ) from self._error
        if (error := self._error or self.database_thread.failure) is not None:
            raise error
        if self.stop.by != "elsewhere" and self.database_thread.counts.reach(self.limits.budget):
            self.stopped_by = "budget"
        elif self.stop.by is None and self._is_out_of_patience:
            self.stopped_by = "patience"
        elif self.stop.by is None and self._has_done_its_share():
            self.stopped_by = "max_trials"
        else:
            self.stopped_by = self.stop.by or "queue"
