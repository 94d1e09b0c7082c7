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
from kmnist_search.dashboard_content import leader as leader_lease
from kmnist_search.dashboard_content.artifacts import TrialArtifacts
from kmnist_search.dashboard_content.attributes import Board
from kmnist_search.dashboard_content.note import note
from kmnist_search.dashboard_content.plots import plots
from kmnist_search.dashboard_content.snapshot import Images, Knowledge, Snapshot
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
MOST_REST_SECONDS = 300.0
#: With many workers, each checks less often, so that all together stay below this rate.
LOOKS_A_SECOND = 0.5
#: The longest wait for the last update at the end of the run.
CLOSING_SECONDS = 5.0
#: The last update is repeated so many times at most, because trials may end while it is written.
LAST_TRIES = 3


class Publisher:
    """What one worker writes for the dashboard. Entering it starts the thread; leaving it ends the thread."""

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
        """Store the arguments; the thread starts later.

        Args:
            study: what is shown.
            file: of the study.
            cached_storage: the study as the worker sees it.
            trial_artifacts: for the pictures of its best trials.
            worker: its id in the roster.
            budget: number of trials to finish; None means all that exist.
            images: used by the study; None if each compared system has its own.
        """
        self.study, self.file, self.cached_storage, self.trial_artifacts = study, file, cached_storage, trial_artifacts
        self.worker, self.budget, self.images = worker, budget, images
        self._knowledge = Knowledge(cached_storage)
        self._board: Board | None = None
        self._rest = UPDATE_SECONDS
        self._began_at, self._cpu_began_at = time.monotonic(), time.process_time()
        self._trouble = ""
        self._is_told = self._ends_at_once = False
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

    def new_trouble(self) -> str:
        """Return the first error, once; otherwise an empty string."""
        if self._is_told or not self._trouble:
            return ""
        self._is_told = True
        return self._trouble

    # The methods below run in the thread.

    def _run(self) -> None:
        due = time.monotonic() + FIRST_SECONDS
        while True:
            try:
                validated = self._inbox.get(timeout=max(due - time.monotonic(), 0.0))
            except thread_queue.Empty:
                self._try(self._update)
                due = time.monotonic() + self._rest
                continue
            if validated is None:
                break
            if not self._ends_at_once:
                self._try(partial(self.trial_artifacts.hang, validated, self.cached_storage))
        if not self._ends_at_once:
            self._try(self._conclude)

    def _try(self, work: Callable[[], None]) -> None:
        """Run `work`, catch its errors, and compute the time until the next update."""
        began = time.thread_time()
        try:
            work()
        except StudyNotFoundError:
            self._board = None  # nothing left to show; the thread that claims trials reports it
        except Exception as error:  # an error in publishing must not stop the search
            self._board = None
            if not is_passing(error):  # the database thread reports a database that is away
                self._trouble = self._trouble or f"{type(error).__name__}: {reason_of(error)}"
        self.study.storage.let_go()
        took = time.thread_time() - began
        rest = min(REST * took * self._seconds_a_cpu_second(), MOST_REST_SECONDS)
        self._rest = max(UPDATE_SECONDS, rest, self.cached_storage.num_running() / LOOKS_A_SECOND)

    def _seconds_a_cpu_second(self) -> float:
        """Return this process's wall time per CPU second, which rises when other processes use the cores."""
        return (time.monotonic() - self._began_at) / max(time.process_time() - self._cpu_began_at, 0.01)

    def _update(self) -> None:
        self._show(is_last=False)

    def _conclude(self) -> None:
        """Show the final status of this run, unless other workers continue or it is shown already."""
        storage, queue = self.study.storage, self.study.queue
        with storage.reading() as connection:
            members = registered_workers(connection, queue.study_id)  # this worker has left the roster
            held, counts = leader_lease.look(connection, queue), queue.counts(connection)
        if counts == held.shown or any(not member.is_gone for member in members):
            if held.worker == self.worker:
                with storage.writing() as connection:
                    leader_lease.give_up(connection, queue, self.worker)
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
            held = leader_lease.take(connection, queue, self.worker, seconds=hold)
        if held.worker != self.worker:
            self._board = None  # another worker may overwrite what this one has written
            return True
        with storage.reading() as connection:
            standing = self._standing(connection)
            if self._board is None:
                self._board = Board(queue.study_id)
                self._board.look(connection)
        counts, known = standing.counts, sum(trial.state.is_finished() for trial in standing.trials)
        if counts == held.shown or (counts.finished and not known):
            return True  # no news, or the cached storage is still empty
        self.trial_artifacts.sweep()
        self._board.hang(plots(standing))
        with storage.writing() as connection:
            is_whole = counts == queue.counts(connection) and counts.finished == known
            shown, seconds = (counts if is_whole else None), (0.0 if is_last and is_whole else hold)
            if leader_lease.fulfil(connection, queue, self.worker, shown=shown, seconds=seconds):
                self._board.write(connection, partial(note, standing))
        return is_whole

    def _standing(self, connection: Connection) -> Snapshot:
        study, counts = self.study, self.study.queue.counts(connection)
        trials = self._knowledge.trials(connection)
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
