"""The command `best`: show the best trials of a study, or retrain them.

Imports that take time wait inside the functions, so that `--help` answers at once.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kmnist_search.cli.options import (
    INTERRUPTED,
    checkpoints_option,
    data_dir_option,
    device_option,
    force_option,
    is_typed,
    json_option,
    print_json,
    set_up_runtimes,
    storage_option,
    stored_study,
    study_argument,
)

if TYPE_CHECKING:
    from kmnist_search.evaluation.metrics import Metrics
    from kmnist_search.retrain.plan import RetrainOptions
    from kmnist_search.study.study import SearchStudy

FOR_SHOWING = ("study", "storage_url", "top", "retrain", "as_json")


@click.command(epilog="Example: kmnist-search best kmnist-cpu --retrain --out winner")
@study_argument
@storage_option
@click.option(
    "--top",
    type=click.IntRange(min=1),
    help="Trials to show, or candidates to retrain; --retrain --top 1 takes the best as it is.  "
    "[default: 10, or 5 with --retrain]",
)
@click.option("--retrain", is_flag=True, help="Retrain the best, test once, and write model and report.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Reruns of each candidate.")
@click.option("--final-seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Final models.")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of each training.  [default: the study's]")
@click.option(
    "--out", metavar="FOLDER", type=click.Path(path_type=Path), help="Folder of the result.  [default: STUDY-best]"
)
@force_option
@click.option("--compile", "compiled", is_flag=True, help="Train through torch.compile: some 10 s of set-up each.")
@device_option
@data_dir_option
@checkpoints_option
@json_option
def best(
    study: str | None,
    storage_url: str,
    top: int | None,
    retrain: bool,
    out: Path | None,
    force: bool,
    checkpoint_dir: Path | None,
    as_json: bool,
    **training: Any,
) -> None:
    """Show the best trials of a study, or retrain the winner.

    STUDY is its name in the storage; without it, the only one or the one last worked on. The trials shown were chosen
    on validation images: expect less on new ones.

    With --retrain the best distinct configurations are trained again on fresh seeds and splits of the training images;
    the winner's recipe is frozen, trained on all training images, and only then the test set is opened, once for each
    final model. If it is stopped, the same command resumes it.
    """
    set_up_runtimes()

    if not retrain:
        _check_none_given()
    found = stored_study(storage_url, study, checkpoint_dir)
    if not retrain:
        _show(found, top or 10, as_json)
        return

    from kmnist_search.retrain.plan import RetrainOptions

    options = RetrainOptions(top_k=top or 5, **training)
    metrics = _retrain(found, options, out or Path(f"{found.name}-best"), force=force, quiet=as_json)
    if as_json:
        print_json(metrics.model_dump(mode="json"))


def _check_none_given() -> None:
    """Raise UsageError if an option for retraining was typed."""
    for param in click.get_current_context().command.params:
        if param.name not in FOR_SHOWING and is_typed(str(param.name)):
            raise click.UsageError(f"{param.opts[0]} is for retraining. Add --retrain, or leave it out.")


def _show(study: "SearchStudy", top: int, as_json: bool) -> None:
    from rich.console import Console

    from kmnist_search.study.summary import best_summary
    from kmnist_search.terminal.tables import best_view

    summary = best_summary(study, top)
    if as_json:
        print_json(summary)
    else:
        Console().print(best_view(summary))


def _retrain(study: "SearchStudy", options: "RetrainOptions", folder: Path, *, force: bool, quiet: bool) -> "Metrics":
    from rich.console import Console

    from kmnist_search.evaluation.lock import alone
    from kmnist_search.host.signals import StopSignals
    from kmnist_search.retrain import result_folder
    from kmnist_search.retrain.preparation import prepare
    from kmnist_search.retrain.retraining import Retraining
    from kmnist_search.terminal.printing import print_line
    from kmnist_search.terminal.retraining import announce, conclude, follow

    console = Console(stderr=quiet)
    preparation = prepare(study, options)
    before = result_folder.result_before(folder, preparation)
    if before is not None and not force:
        conclude(console, before, folder)
        print_line(console, "Done before: nothing to do.")
        return before
    result_folder.check_place(folder, force=force)
    announce(console, preparation)
    with alone(study), StopSignals() as signals:
        retraining = Retraining(preparation, signals)
        follow(console, retraining.work())
        if retraining.result is None:
            unsaved = retraining.unsaved
            lost = f" The training that ran starts again from its first epoch: {unsaved}" if unsaved else ""
            print_line(console, f"Stopped. The same command resumes.{lost}")
            sys.exit(INTERRUPTED)
        metrics = result_folder.write(folder, preparation, retraining.result)
    conclude(console, metrics, folder)
    return metrics
