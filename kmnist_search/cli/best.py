"""The command `best`: show the best trials of a study, or retrain them.

Imports that take time wait inside the functions, so that `--help` answers at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kmnist_search.cli.options import (
    is_typed,
    json_option,
    print_json,
    stored_study,
    study_argument,
)
from kmnist_search.cli.work_options import desk_at, devices_here, result_options, retrain_options, work_options
from kmnist_search.host.forks import import_ahead

if TYPE_CHECKING:
    from kmnist_search.run.options import RunOptions
    from kmnist_search.study.study import SearchStudy

FOR_SHOWING = ("study", "storage_url", "top_k", "of_each_size", "max_parameters", "retrains", "as_json")


@click.command(epilog="Example: kmnist-search best kmnist-cpu --retrain --out winner")
@study_argument
@click.option(
    "--top",
    "top_k",
    type=click.IntRange(min=1),
    help="Trials to show, or candidates to retrain; --retrain --top 1 takes the best as it is.  "
    "[default: 10, or the study's with --retrain]",
)
@click.option("--front", "of_each_size", is_flag=True, help="Only trials that are better than all smaller ones.")
@click.option(
    "--max-parameters", type=click.IntRange(min=1), metavar="NUMBER", help="Only nets with at most so many parameters."
)
@click.option("--retrain", "retrains", is_flag=True, help="Retrain the best, test once, and write model and report.")
@retrain_options
@result_options
@work_options
@json_option
def best(
    study: str | None,
    top_k: int | None,
    of_each_size: bool,
    max_parameters: int | None,
    retrains: bool,
    retraining: "dict[str, Any]",
    out: Path | None,
    force: bool,
    options: "RunOptions",
    as_json: bool,
) -> None:
    """Show the best trials of a study, or retrain the winner.

    STUDY is its name in the storage; without it, the only one or the one last worked on. The trials shown were chosen
    on validation images: expect less on new ones.

    With --retrain the best distinct configurations are trained again on fresh seeds and splits of the training images;
    the winner's recipe is frozen, trained on all training images, and only then the test set is opened, once for each
    final model. The trainings are trials of the study STUDY-retraining: they use all GPUs, or processes on a CPU, and
    kmnist-search worker STUDY helps from any machine. If it is stopped, the same command resumes it.
    """
    if not retrains:
        _check_none_given()
    elif of_each_size:
        raise click.UsageError("--front shows trials and retrains none. Leave it or --retrain out.")
    found = stored_study(options.storage_url, study, options.checkpoint_dir)
    if not retrains:
        _show(found, top_k or 10, of_each_size=of_each_size, max_parameters=max_parameters, as_json=as_json)
        return
    import_ahead(options.device, options.workers)

    from rich.console import Console

    from kmnist_search.api.planned import result_folder_of, retrain
    from kmnist_search.retrain.plan import RetrainOptions

    asked = RetrainOptions(top_k=top_k, max_parameters=max_parameters, **retraining)
    console = Console(stderr=as_json)
    desk = desk_at(console, devices_here(options))
    metrics = retrain(desk, found, asked, options, out or result_folder_of(found.name), force=force)
    if as_json:
        print_json(metrics.model_dump(mode="json"))


def _check_none_given() -> None:
    """Raise UsageError if an option for retraining was typed."""
    for param in click.get_current_context().command.params:
        if param.name not in FOR_SHOWING and is_typed(str(param.name)):
            raise click.UsageError(f"{param.opts[0]} is for retraining. Add --retrain, or leave it out.")


def _show(study: "SearchStudy", top: int, *, of_each_size: bool, max_parameters: int | None, as_json: bool) -> None:
    from rich.console import Console

    from kmnist_search.study.summary import best_summary
    from kmnist_search.terminal.tables import best_view

    summary = best_summary(study, top, of_each_size=of_each_size, max_parameters=max_parameters)
    if as_json:
        print_json(summary)
    else:
        Console().print(best_view(summary))
