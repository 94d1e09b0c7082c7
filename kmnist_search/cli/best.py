"""The command `best`: show the best trials of a study, or retrain them.

Imports that take time wait inside the functions, so that `--help` answers at once.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from kmnist_search.cli.options import (
    INTERRUPTED,
    checkpoints_option,
    data_dir_option,
    device_option,
    json_option,
    print_json,
    storage_option,
    threads_wait_passively,
)

if TYPE_CHECKING:
    from kmnist_search.evaluation.metrics import Metrics
    from kmnist_search.retrain.plan import RetrainOptions
    from kmnist_search.study.study import SearchStudy

FOR_RETRAINING = (
    *("top_k", "seeds", "final_seeds", "epochs", "out", "force", "compiled", "device", "data_dir", "checkpoint_dir"),
)


@click.command(epilog="Example: kmnist-search best kmnist-cpu --retrain --out winner")
@click.argument("study", required=False)
@storage_option
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Trials to show.")
@click.option("--retrain", is_flag=True, help="Retrain the best, test once, and write model and report.")
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Candidates to choose from; 1 takes the best as it is.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Reruns of each candidate.")
@click.option("--final-seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Final models.")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of each of them.  [default: the study's]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the result.  [default: STUDY-best]")
@click.option("--force", is_flag=True, help="Replace that folder if it is there.")
@click.option("--compile", "compiled", is_flag=True, help="Train through torch.compile: some 10 s of set-up each.")
@device_option
@data_dir_option
@checkpoints_option
@json_option
@click.pass_context
def best(
    ctx: click.Context,
    study: str | None,
    storage_url: str,
    top: int,
    retrain: bool,
    top_k: int,
    seeds: int,
    final_seeds: int,
    epochs: int | None,
    out: Path | None,
    force: bool,
    compiled: bool,
    device: str,
    data_dir: Path | None,
    checkpoint_dir: Path | None,
    as_json: bool,
) -> None:
    """Show the best trials of a study, or retrain the winner.

    STUDY is its name in the storage; without it, the only one or the one last worked on. What is shown was chosen on
    validation images: expect less on new ones.

    With --retrain the best distinct configurations are trained again on fresh seeds and splits of the training images;
    the winner's recipe is frozen, trained on all training images, and only then the test set is opened, once for each
    final model. If it is stopped, the same command resumes it.
    """
    threads_wait_passively()

    from kmnist_search.database.storage import open_storage
    from kmnist_search.study.opening import find_study

    if not retrain:
        _check_none_given(ctx)
    elif ctx.get_parameter_source("top") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--top is for showing trials. With --retrain, --top-k says how many to choose from.")
    found = find_study(open_storage(storage_url, create=False, checkpoint_dir=checkpoint_dir), study)
    if not retrain:
        _show(found, top, as_json)
        return

    from kmnist_search.retrain.plan import RetrainOptions

    options = RetrainOptions(
        top_k=top_k,
        seeds=seeds,
        final_seeds=final_seeds,
        epochs=epochs,
        data_dir=data_dir,
        device=device,
        compiled=compiled,
    )
    metrics = _retrain(found, options, out or Path(f"{found.name}-best"), force=force, quiet=as_json)
    if as_json:
        print_json(metrics.model_dump(mode="json"))


def _check_none_given(ctx: click.Context) -> None:
    for name in FOR_RETRAINING:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = next(param.opts[0] for param in ctx.command.params if param.name == name)
            raise click.UsageError(f"{option} is for retraining. Add --retrain, or leave it out.")


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
    from kmnist_search.terminal import retraining as retraining_terminal

    console = Console(stderr=quiet)
    preparation = prepare(study, options)
    before = result_folder.result_before(folder, preparation)
    if before is not None and not force:
        retraining_terminal.conclude(console, before, folder)
        console.print("Done before: nothing to do.", highlight=False)
        return before
    result_folder.check_place(folder, force=force)
    retraining_terminal.announce(console, preparation)
    with alone(study), StopSignals() as signals:
        retraining = Retraining(preparation, signals)
        retraining_terminal.follow(console, retraining.work())
        if retraining.result is None:
            lost = (
                f" The training at work starts again from its first epoch: {retraining.unsaved}"
                if retraining.unsaved
                else ""
            )
            console.print(f"Stopped. The same command resumes.{lost}", highlight=False, markup=False)
            sys.exit(INTERRUPTED)
        metrics = result_folder.write(folder, preparation, retraining.result)
    retraining_terminal.conclude(console, metrics, folder)
    return metrics
