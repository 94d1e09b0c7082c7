"""The progress and the result of a retraining in a terminal."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from kmnist_search.engine import verdict
from kmnist_search.engine.replica import Epoch
from kmnist_search.evaluation.metrics import Metrics, Recipe, Rerun
from kmnist_search.retrain.events import (
    ModelTested,
    RetrainingEvent,
    TrainingEnded,
    TrainingStarted,
    WinnerChosen,
)
from kmnist_search.retrain.preparation import Preparation
from kmnist_search.terminal.printing import print_line
from kmnist_search.wording import count, duration_text, interval, moment, percent

STAGES = {"rerun": "rerun of", "final": "final model by"}


def announce(console: Console, preparation: Preparation) -> None:
    """Show what is about to be trained, and about how long it takes."""
    plan, study = preparation.plan, preparation.study
    candidates, reruns, finals = len(plan.candidates), len(plan.reruns), len(plan.final_seeds)
    choice = f"{candidates} candidates x {reruns} fresh seeds and splits to choose by, then " if reruns else ""
    pace = "" if plan.seconds is None else f"; {duration_text(plan.seconds)} at the study's pace"
    print_line(
        console,
        f"study {study.name} in {study.storage.shown_url}: {choice}{count(finals, 'final model')} on all images{pace}",
    )
    epochs = preparation.options.epochs
    if epochs is not None and epochs != study.epochs:
        print_line(console, f"epochs of a training: {epochs}, in the study {study.epochs}: scores differ for that, too")
    if candidates < preparation.options.top_k:
        print_line(console, f"candidates with different hyperparameters: {candidates}, fewer than --top asks for")
    for text in verdict.told(preparation.device):
        print_line(console, text)
    unfinished = study.counts()
    if open_trials := unfinished.waiting + unfinished.running:
        print_line(console, f"{open_trials} of its trials are not finished yet: one of them may be the best")


def follow(console: Console, events: Iterator[RetrainingEvent]) -> None:
    """Show the events: a bar for the running training, a line for each finished step."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"))
    bars = Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal)
    with bars:
        task: TaskID | None = None
        for event in events:
            match event:
                case TrainingStarted():
                    title = _title(event)
                    task = bars.add_task(title, total=event.epochs, completed=event.epochs_done)
                    if event.epochs_done:
                        print_line(console, f"{title} resumes after epoch {event.epochs_done}")
                case Epoch() if task is not None:
                    bars.update(task, completed=event.number)
                case TrainingEnded():
                    if task is not None:
                        bars.remove_task(task)
                        task = None
                    print_line(console, _ended(event))
                case WinnerChosen():
                    for line in _chosen(event):
                        print_line(console, line)
                case Recipe():
                    print_line(console, f"recipe {event.digest} frozen at {moment(event.frozen_at)}")
                case ModelTested():
                    source = " (from the ledger)" if event.from_ledger else ""
                    accuracy = f"accuracy {percent(event.model.test_accuracy)}"
                    print_line(console, f"test set, seed {event.model.seed}: {accuracy}{source}")


def conclude(console: Console, metrics: Metrics, folder: Path) -> None:
    """Show the result and its folder."""
    for line in headline(metrics):
        print_line(console, line)
    print_line(console, f"report: {folder / 'report.html'}    model: {folder / 'model'}")


def headline(metrics: Metrics) -> list[str]:
    """Return the result in a few lines."""
    test, recipe = metrics.test, metrics.recipe
    seeds = "" if test.seeds_interval is None else f"; over seeds 95 % in {interval(test.seeds_interval)}"
    looks = f"{count(len(metrics.ledger), 'look')} by {count(metrics.recipes_tested, 'recipe')}"
    return [
        f"test accuracy {percent(test.mean_accuracy)}, mean of {count(len(test.models), 'final model')}{seeds}; "
        f"for {metrics.data.test_images:,} images 95 % in {interval(test.sampling_interval)}",
        f"validation accuracy was {percent(test.val_accuracy)}: the test set gave {abs(test.gap) * 100:.2f} points "
        + ("less" if test.gap > 0 else "more"),
        f"recipe {recipe.digest} of trial {recipe.trial}; the test set has had {looks}"
        + ("" if metrics.recipes_tested == 1 else ": choosing among them by these figures would be optimistic"),
    ]


def _title(event: TrainingStarted) -> str:
    last = event.number + len(event.seeds) - 1
    numbers, together = (f"{event.number}-{last}", ", all at once") if len(event.seeds) > 1 else (f"{event.number}", "")
    return f"[{numbers}/{event.total}] {STAGES[event.stage]} trial {event.trial}{together}"


def _ended(event: TrainingEnded) -> str:
    training, before = event.training, "  (done before)" if event.was_done else ""
    value = f"  val_accuracy {percent(training.val_accuracy)}" if isinstance(training, Rerun) else ""
    return (
        f"[{event.number}/{event.total}] {STAGES[event.stage]} trial {event.trial}, seed {training.seed}{value}  "
        f"{duration_text(training.seconds)}{before}"
    )


def _chosen(event: WinnerChosen) -> Iterator[str]:
    winner, test = event.candidates[0], event.paired_test
    if winner.mean_val_accuracy is None or winner.luck is None:
        yield f"winner: trial {winner.trial}, the only candidate"
        return
    yield (
        f"winner: trial {winner.trial}, val_accuracy {percent(winner.mean_val_accuracy)} over "
        f"{len(winner.reruns)} reruns; it had {percent(winner.study_val_accuracy)} in the study"
    )
    first = max(event.candidates, key=lambda candidate: candidate.study_val_accuracy)
    if first.luck is not None:
        may = f"{first.luck * 100:.2f} points of it may be luck" if first.luck > 0 else "its reruns confirm it"
        yield f"the study's best score (trial {first.trial}, {percent(first.study_val_accuracy)}): {may}"
    if test is not None:
        verdict = "distinguishable" if test.distinguishable else "not distinguishable"
        p = "too few reruns to tell" if test.p_value is None else f"p = {test.p_value:.2g}, {len(winner.reruns)} reruns"
        yield f"runner-up: trial {test.runner_up}, {test.mean_difference * 100:.2f} points behind, {verdict} ({p})"
