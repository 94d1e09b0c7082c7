"""Planned trainings: the work on them, and a retraining from its plan to its report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console

from kmnist_search.api.work import let_go_on, run_workers
from kmnist_search.errors import StoppedError
from kmnist_search.evaluation.lock import alone
from kmnist_search.evaluation.metrics import Metrics
from kmnist_search.host.signals import StopSignals
from kmnist_search.retrain import result_folder
from kmnist_search.retrain.choice import Choice
from kmnist_search.retrain.conclusion import FinalTrainings, concluded, final_models
from kmnist_search.retrain.plan import RetrainOptions
from kmnist_search.retrain.preparation import Preparation, prepare
from kmnist_search.retrain.retraining import Retraining, begin, rejoin
from kmnist_search.run.options import RunOptions
from kmnist_search.run.search import Search
from kmnist_search.study.study import SearchStudy
from kmnist_search.terminal.printing import print_line
from kmnist_search.terminal.retraining import announce, conclude, follow
from kmnist_search.wording import count
from kmnist_search.worker.stop import Limits
from kmnist_search.worker.trial_models import TrialModels


@dataclass(frozen=True, eq=False, kw_only=True)
class Desk:
    """Where planned trainings are worked on and shown.

    Attributes:
        console: to show the work on.
        devices: where to work.
        resume: what to type to resume the work.
    """

    console: Console
    devices: Sequence[str]
    resume: str

    def tell(self, line: str) -> None:
        """Show a line."""
        print_line(self.console, line)

    def train(self, search: Search, prepare: Callable[[RunOptions], Search]) -> None:
        """Train what is planned, and stay until what other processes train is finished.

        Args:
            search: of the planned trainings.
            prepare: see `run_workers`.

        Raises:
            StoppedError: at a signal, at a time limit, or because the study was stopped; all is handed back.
        """
        with StopSignals() as signals:
            stopped_by = run_workers(self.console, search, prepare, search.places(self.devices), signals=signals)
        self.check_signals(signals)
        if stopped_by == "timeout":
            self._stop("Time is up", by_user=False)
        if stopped_by == "command":
            self._stop("The study was stopped", by_user=True)

    def check_signals(self, signals: StopSignals) -> None:
        """Raise StoppedError if a signal asked for a stop."""
        if signals.received is not None:
            self._stop("Stopped", by_user=True)

    def _stop(self, why: str, *, by_user: bool) -> None:
        self.tell(f"{why}. To resume: {self.resume}")
        raise StoppedError(why, by_user=by_user)


def check_result_folder(study: str, folder: Path | None, *, force: bool) -> None:
    """Check before a search whether the result of the retraining after it can be written.

    Raises:
        ResultFolderError: the folder exists, and must not be replaced.
    """
    result_folder.check_place(folder or result_folder_of(study), force=force)


def result_folder_of(study: str) -> Path:
    """Return the folder of a retraining's result, if no other is asked for."""
    return Path(f"{study}-best")


def retrain_as_planned(
    desk: Desk, study: SearchStudy, options: RunOptions, folder: Path | None, *, force: bool
) -> Metrics:
    """Retrain the winner of a study whose trials are finished, as the study's table [retrain] says."""
    limits = Limits(deadline=options.limits.deadline)
    options = replace(options, trials=None, limits=limits)
    return retrain(desk, study, RetrainOptions(), options, folder or result_folder_of(study.name), force=force)


def retrain(
    desk: Desk,
    study: SearchStudy,
    retrain_options: RetrainOptions,
    options: RunOptions,
    folder: Path,
    *,
    force: bool,
) -> Metrics:
    """Retrain the winner of a study and write the report to `folder`; resumes what was begun before.

    Any number of processes may do this at the same time: they share the trainings.

    Raises:
        KmnistSearchError: something cannot be used, or did not finish.
        StoppedError: at a signal, at a time limit, or because the study was stopped.
    """

    def done_before() -> Metrics | None:
        before = result_folder.result_before(folder, preparation)
        if before is not None:
            conclude(desk.console, before, folder)
            desk.tell("Done before: nothing to do.")
        return before

    began = datetime.now(UTC)
    preparation = prepare(study, retrain_options, options)
    if not force and (before := done_before()):
        return before
    result_folder.check_place(folder, force=force)
    let_go_on(desk.console, study)
    announce(desk.console, preparation)
    retraining, choice, finals = _trained(desk, preparation, options)
    for line in choice.told():
        desk.tell(line)
    with StopSignals() as signals, alone(study, waiting=partial(desk.check_signals, signals)):
        # A test that has begun is finished, whatever signals come.
        made = result_folder.result_before(folder, preparation)
        if made is not None and made.made_at > began and (before := done_before()):  # by another process
            return before
        result = follow(desk.console, concluded(retraining, choice, finals))
        metrics = result_folder.write(folder, preparation, result)
    conclude(desk.console, metrics, folder)
    return metrics


def _trained(desk: Desk, preparation: Preparation, options: RunOptions) -> tuple[Retraining, Choice, FinalTrainings]:
    """Train all that is planned, together with other processes; return the winner and its final models."""
    study, plan = preparation.study, preparation.plan
    while True:
        search = begin(preparation, options.on(desk.devices[0]))
        if search.counts().unfinished:
            if search.counts().finished and (left := search.trials_left()):
                desk.tell(f"{count(left, 'training')} left; the others were done before")
            desk.train(search, partial(rejoin, study.name))
        retraining = Retraining(source=study, companion=search.study, plan=plan, data=search.data)
        if retraining.add_finals() or search.counts().unfinished:  # another process has queued more meanwhile
            continue
        choice = retraining.choice()
        finals = final_models(retraining, choice, TrialModels(search.store))
        if finals is not None:  # else the model of one is gone: it is trained again
            return retraining, choice, finals
