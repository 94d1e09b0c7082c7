"""The progress and the result of a retraining in a terminal."""

from collections.abc import Generator
from pathlib import Path

from rich.console import Console

from kmnist_search.evaluation.metrics import Metrics
from kmnist_search.retrain.conclusion import ModelTested, RetrainingResult
from kmnist_search.retrain.preparation import Preparation
from kmnist_search.terminal.printing import print_line
from kmnist_search.wording import count, duration_text, interval, percent


def announce(console: Console, preparation: Preparation) -> None:
    """Show what is about to be trained, and about how long it takes."""
    plan, study, settings = preparation.plan, preparation.study, preparation.settings
    candidates, reruns, finals = len(plan.candidates), len(plan.repeats), len(plan.final_seeds)
    fresh = "1 fresh seed and split" if reruns == 1 else f"{reruns} fresh seeds and splits"
    choice = f"{candidates} candidates x {fresh} to choose by, then " if reruns else ""
    pace = "" if plan.seconds is None else f"; {duration_text(plan.seconds)} of training at the study's pace"
    print_line(
        console,
        f"study {study.name} in {study.storage.shown_url}: {choice}{count(finals, 'final model')} on all images{pace}",
    )
    for what, epochs in (("rerun", settings.rerun_epochs if reruns else None), ("final model", settings.epochs)):
        if epochs is not None and epochs != study.epochs:
            text = f"epochs of a {what}: {epochs}, in the study {study.epochs}: scores differ for that, too"
            print_line(console, text)
    if candidates < settings.top_k:
        fewer = f"{count(candidates, 'candidate')} instead of {settings.top_k}"
        print_line(console, f"{fewer}: no more configurations are complete")
    unfinished = study.counts()
    if open_trials := unfinished.waiting + unfinished.running:
        print_line(console, f"{open_trials} of the study's trials are not finished yet: one of them may be the best")


def follow(console: Console, tests: Generator[ModelTested, None, RetrainingResult]) -> RetrainingResult:
    """Show each test of a final model, and return the result."""
    while True:
        try:
            tested = next(tests)
        except StopIteration as end:
            result: RetrainingResult = end.value
            return result
        source = " (from the ledger)" if tested.from_ledger else ""
        accuracy = f"accuracy {percent(tested.model.test_accuracy)}"
        print_line(console, f"test set, seed {tested.model.seed}: {accuracy}{source}")


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
