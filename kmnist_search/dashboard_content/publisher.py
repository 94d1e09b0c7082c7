"""The publisher: a thread that keeps the note, plots and pictures of a study up to date while trials train.

Only one of several workers writes, see `leader.py`. An error here is reported once and never stops the search.
"""

import queue as thread_queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from sqlalchemy.engine import Connection

from kmnist_search.charts.trials import complete
from kmnist_search.dashboard_content import leader
from kmnist_search.dashboard_content.artifacts import TrialArtifacts
from kmnist_search.dashboard_content.attributes import DashboardAttributes
from kmnist_search.dashboard_content.note import note
from kmnist_search.dashboard_content.plots import plots
from kmnist_search.dashboard_content.snapshot import Images, Snapshot, TrialCache
from kmnist_search.database.errors import is_passing, reason_of
from kmnist_search.errors import StudyNotFoundError
from kmnist_search.queue.workers import registered_workers
from kmnist_search.study.cached_storage import CachedStorage
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.schema import StudyFile
from kmnist_search.worker.events import TrialValidated

#: Time before the first update; many runs are over earlier.
FIRST_SECONDS = 5.0
#: The shortest time between two updates.
UPDATE_SECONDS = 30.0
#: Before the next update, the process must spend this many times the CPU time of the last one.
REST = 200
#: The longest time between two updates: in a process that mostly waits, an update takes no time from the search.
MAX_REST_SECONDS = 300.0
#: With many workers, each checks less often, so that all together stay below this rate.
CHECKS_PER_SECOND = 0.5
#: The longest wait for the last update at the end of the run.
CLOSING_SECONDS = 5.0
#: The last update is repeated so many times at most, because trials may end while it is written.
LAST_TRIES = 3


class Publisher:
    """What one worker writes for the dashboard. Entering it starts the thread; leaving it ends the thread.

    Args:
        study: what is shown.
        file: of the study.
        cached_storage: the study as the worker sees it.
        trial_artifacts: for the pictures of its best trials.
        worker: its id among the registered workers.
        budget: number of trials to finish; None means all that exist.
        images: used by the study; None if each training has its own.
    """

    def __init__(
        self,
        study: SearchStudy,
        file: StudyFile,
        cached_storage: CachedStorage,
        trial_artifacts: TrialArtifacts,
        *,
        worker: str,
        budget: int | None,
        images: Images | None,
    ) -> None:
        self.study, self.file, self.cached_storage, self.trial_artifacts = study, file, cached_storage, trial_artifacts
        self.worker, self.budget, self.images = worker, budget, images
        self._trial_cache = TrialCache(cached_storage)
        self._attributes: DashboardAttributes | None = None
        self._rest = UPDATE_SECONDS
        self._began_at, self._cpu_began_at = time.monotonic(), time.process_time()
        self._error = ""
        self._is_reported = self._ends_at_once = False
        self._inbox: thread_queue.SimpleQueue[TrialValidated | None] = thread_queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def __enter__(self) -> "Publisher":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ends_at_once = kind is not None
        self._inbox.put(None)
        self._thread.join(0.5 if self._ends_at_once else CLOSING_SECONDS)

    def take(self, validated: TrialValidated) -> None:
        """Queue a complete trial for publishing; returns at once."""
        self._inbox.put(validated)

    def new_error(self) -> str:
        """Return the first error, once; otherwise an empty string."""
        if self._is_reported or not self._error:
            return ""
        self._is_reported = True
        return self._error

    # The methods below run in the thread.

    def _run(self) -> None:
        due = time.monotonic() + FIRST_SECONDS
        while True:
            try:
                validated = self._inbox.get(timeout=max(due - time.monotonic(), 0.0))
            except thread_queue.Empty:
                self._try(partial(self._show, is_last=False))
                due = time.monotonic() + self._rest
                continue
            if validated is None:
                break
            if not self._ends_at_once:
                self._try(partial(self.trial_artifacts.add, validated, self.cached_storage))
        if not self._ends_at_once:
            self._try(self._conclude)

    def _try(self, work: Callable[[], object]) -> None:
        """Run `work`, catch its errors, and compute the time until the next update."""
        began = time.thread_time()
        try:
            work()
        except StudyNotFoundError:
            self._attributes = None  # nothing left to show; the thread that claims trials reports it
        except Exception as error:  # an error in publishing must not stop the search
            self._attributes = None
            if not is_passing(error):  # the database thread reports a database that is away
                self._error = self._error or f"{type(error).__name__}: {reason_of(error)}"
        self.study.storage.disconnect()
        took = time.thread_time() - began
        rest = min(REST * took * self._seconds_a_cpu_second(), MAX_REST_SECONDS)
        self._rest = max(UPDATE_SECONDS, rest, self.cached_storage.num_running() / CHECKS_PER_SECOND)

    def _seconds_a_cpu_second(self) -> float:
        """Return this process's wall time per CPU second, which rises when other processes use the cores."""
        return (time.monotonic() - self._began_at) / max(time.process_time() - self._cpu_began_at, 0.01)

    def _conclude(self) -> None:
        """Show the final status of this run, unless other workers continue or it is shown already.

        Outdated artifacts are removed in any case, for this worker may have added some after the leader removed them.
        """
        self.trial_artifacts.remove_outdated()
        storage, queue = self.study.storage, self.study.queue
        with storage.reading() as connection:
            members = registered_workers(connection, queue.study_id)  # this worker is not registered any more
            held, counts = leader.read(connection, queue), queue.counts(connection)
        if counts == held.shown or any(not member.is_gone for member in members):
            if held.worker == self.worker:
                with storage.writing() as connection:
                    leader.extend(connection, queue, self.worker, shown=held.shown, seconds=0.0)
            return
        for _ in range(LAST_TRIES):
            with storage.reading() as connection:
                self.cached_storage.read_news(connection)  # the database thread, which read the news before, has ended
            if self._show(is_last=True):
                break

    def _show(self, *, is_last: bool) -> bool:
        """Show the present status if this worker leads and there is news; return False if it changed meanwhile."""
        storage, queue, hold = self.study.storage, self.study.queue, 2 * self._rest + UPDATE_SECONDS
        with storage.writing() as connection:
            held = leader.acquire(connection, queue, self.worker, seconds=hold)
        if held.worker != self.worker:
            self._attributes = None  # another worker may overwrite what this one has written
            return True
        with storage.reading() as connection:
            snapshot = self._snapshot(connection)
            if self._attributes is None:
                self._attributes = DashboardAttributes(queue.study_id)
                self._attributes.read_plots(connection)
        counts, known = snapshot.counts, sum(trial.state.is_finished() for trial in snapshot.trials)
        if counts == held.shown or (counts.finished and not known):
            return True  # no news, or the cached storage is still empty
        self.trial_artifacts.remove_outdated()
        self._attributes.set_plots(plots(snapshot))
        with storage.writing() as connection:
            is_whole = counts == queue.counts(connection) and counts.finished == known
            shown, seconds = (counts if is_whole else None), (0.0 if is_last and is_whole else hold)
            if leader.extend(connection, queue, self.worker, shown=shown, seconds=seconds):
                self._attributes.write(connection, partial(note, snapshot))
        return is_whole

    def _snapshot(self, connection: Connection) -> Snapshot:
        study, counts = self.study, self.study.queue.counts(connection)
        trials = self._trial_cache.trials(connection)
        return Snapshot(
            name=study.name,
            storage_url=study.storage.lasting_url,
            file=self.file,
            images=self.images,
            budget=counts.total if self.budget is None else self.budget,
            counts=counts,
            trials=trials,
            ranked=study.ranked(complete(trials)),
            workers=registered_workers(connection, study.queue.study_id),
            at=datetime.now(UTC),
        )
