"""Planned trainings on the command line: the work on them, and a retraining from its plan to its report.

Imports that take time wait inside the functions, so that `--help` answers at once.
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kmnist_search.cli.options import INTERRUPTED, typed_command
from kmnist_search.cli.work_options import devices_here

if TYPE_CHECKING:
    from rich.console import Console

    from kmnist_search.evaluation.metrics import Metrics
    from kmnist_search.retrain.choice import Choice
    from kmnist_search.retrain.conclusion import FinalTrainings
    from kmnist_search.retrain.plan import RetrainOptions
    from kmnist_search.retrain.preparation import Preparation
    from kmnist_search.retrain.retraining import Retraining
    from kmnist_search.run.options import RunOptions
    from kmnist_search.run.search import Search
    from kmnist_search.study.study import SearchStudy


def train(
    console: "Console", search: "Search", prepare: "Callable[[RunOptions], Search]", *, options: "RunOptions"
) -> None:
    """Train what is planned, and stay until what other processes train is finished. After a signal end the process.

    Args:
        console: to show the work on.
        search: of the planned trainings.
        prepare: see `run_workers`.
        options: as they were typed.
    """
    from kmnist_search.cli.run_workers import run_workers
    from kmnist_search.host.signals import StopSignals
    from kmnist_search.terminal.printing import print_line

    with StopSignals() as signals:
        stopped_by = run_workers(console, search, prepare, search.places(devices_here(options)), signals=signals)
    if signals.received is not None:
        print_line(console, f"Stopped. To resume: {typed_command()}")
        sys.exit(INTERRUPTED)
    if stopped_by == "timeout":
        print_line(console, f"Time is up. To resume: {typed_command()}")
        sys.exit(0)


def check_result_folder(study: str, folder: Path | None, *, force: bool) -> None:
    """Check before a search whether the result of the retraining after it can be written.

    Raises:
        ResultFolderError: the folder exists, and must not be replaced.
    """
    from kmnist_search.retrain.result_folder import check_place

    check_place(folder or Path(f"{study}-best"), force=force)


def retrain_study(
    console: "Console", study: "SearchStudy", options: "RunOptions", folder: Path | None, *, force: bool
) -> None:
    """Retrain the winner of a study whose trials are finished, as the study's table [retrain] says."""
    from dataclasses import replace

    from kmnist_search.retrain.plan import RetrainOptions
    from kmnist_search.worker.stop import Limits

    limits = Limits(deadline=options.limits.deadline)
    options = replace(options, trials=None, limits=limits)
    retrain(console, study, RetrainOptions(), options, folder or Path(f"{study.name}-best"), force=force)


def retrain(
    console: "Console",
    study: "SearchStudy",
    retrain_options: "RetrainOptions",
    options: "RunOptions",
    folder: Path,
    *,
    force: bool,
) -> "Metrics":
    """Retrain the winner of a study and write the report to `folder`; resumes what was begun before.

    Any number of processes may do this at the same time: they share the trainings.

    Raises:
        KmnistSearchError: something cannot be used, or did not finish.
    """
    from kmnist_search.evaluation.lock import alone
    from kmnist_search.host.signals import StopSignals
    from kmnist_search.retrain import result_folder
    from kmnist_search.retrain.conclusion import concluded
    from kmnist_search.retrain.preparation import prepare
    from kmnist_search.terminal.printing import print_line
    from kmnist_search.terminal.retraining import announce, conclude, follow

    def done_before() -> "Metrics | None":
        before = result_folder.result_before(folder, preparation)
        if before is not None:
            conclude(console, before, folder)
            print_line(console, "Done before: nothing to do.")
        return before

    began = datetime.now(UTC)
    preparation = prepare(study, retrain_options, options)
    if not force and (before := done_before()):
        return before
    result_folder.check_place(folder, force=force)
    announce(console, preparation)
    retraining, choice, finals = _trained(console, preparation, options)
    for line in choice.told():
        print_line(console, line)
    with StopSignals() as signals:  # a test that has begun is finished

        def waiting() -> None:
            if signals.received is not None:
                print_line(console, f"Stopped. To resume: {typed_command()}")
                sys.exit(INTERRUPTED)

        with alone(study, waiting=waiting):
            made = result_folder.result_before(folder, preparation)
            if made is not None and made.made_at > began and (before := done_before()):  # by another process
                return before
            result = follow(console, concluded(retraining, choice, finals))
            metrics = result_folder.write(folder, preparation, result)
    conclude(console, metrics, folder)
    return metrics


def _trained(
    console: "Console", preparation: "Preparation", options: "RunOptions"
) -> "tuple[Retraining, Choice, FinalTrainings]":
    """Train all that is planned, together with other processes; return the winner and its final models."""
    from functools import partial

    from kmnist_search.retrain.conclusion import final_models
    from kmnist_search.retrain.retraining import Retraining, begin, rejoin
    from kmnist_search.terminal.printing import print_line
    from kmnist_search.wording import count
    from kmnist_search.worker.trial_models import TrialModels

    study, plan = preparation.study, preparation.plan
    while True:
        search = begin(preparation, options.on(devices_here(options)[0]))
        if search.counts().unfinished:
            if search.counts().finished and (left := search.trials_left()):
                print_line(console, f"{count(left, 'training')} left; the others were done before")
            train(console, search, partial(rejoin, study.name), options=options)
        retraining = Retraining(source=study, companion=search.study, plan=plan, data=search.data)
        if retraining.add_finals() or search.counts().unfinished:  # another process has queued more meanwhile
            continue
        choice = retraining.choice()
        finals = final_models(retraining, choice, TrialModels(search.store))
        if finals is not None:  # else the model of one is gone: it is trained again
            return retraining, choice, finals
