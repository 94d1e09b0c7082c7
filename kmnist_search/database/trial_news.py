"""The news of a study: reads only the trials that may have changed since the last read."""

from collections.abc import Collection

from optuna.trial import FrozenTrial
from sqlalchemy.engine import Connection

from kmnist_search.database.trial_reader import read_trials
from kmnist_search.optuna_internals import trial_id_of


class TrialNews:
    """Reads the trials of one study repeatedly, but each finished trial once. For one thread at a time."""

    def __init__(self, study_id: int) -> None:
        self.study_id = study_id
        self._unknown_since = 0  # all trials with a lower id are finished and were read
        self._finished: set[int] = set()  # trials with a higher id that are finished and were read

    def read(
        self,
        connection: Connection,
        *,
        complete_until: int | None = None,
        unsettled: Collection[int] = (),
        with_reports: bool = True,
    ) -> list[FrozenTrial]:
        """Return the running trials, and those that have finished since the last call, by number.

        Args:
            connection: in a transaction.
            complete_until: an id. Waiting trials below it are read too; once all trials below it are finished, they are
                not read again.
            unsettled: ids of trials to read again next time even if they are finished now.
            with_reports: whether to read the reports of finished trials.
        """
        news = read_trials(
            connection,
            self.study_id,
            since=self._unknown_since,
            without=self._finished,
            waiting_before=complete_until or 0,
            with_reports=with_reports,
        )
        self._finished.update(trial_id_of(trial) for trial in news if trial.state.is_finished())
        self._finished.difference_update(unsettled)
        if complete_until is not None:
            still_open = [trial_id_of(trial) for trial in news if not trial.state.is_finished()]
            self._unknown_since = min([complete_until, *unsettled, *still_open])
            self._finished = {each for each in self._finished if each >= self._unknown_since}
        return news

    def settle(self, trial_id: int) -> None:
        """Do not read a trial again: it is finished, and the caller has it."""
        self._finished.add(trial_id)

    def forget(self, trial_id: int) -> None:
        """Read a trial again that was `unsettled` until now."""
        self._finished.discard(trial_id)
