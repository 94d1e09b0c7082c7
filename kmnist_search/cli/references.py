"""The command `references`: train the published systems, test them, and compare.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kmnist_search.cli.options import (
    INTERRUPTED,
    WORK_FAILED,
    json_option,
    print_json,
    set_up_runtimes,
    typed_command,
)
from kmnist_search.cli.work_options import devices_here, work_options

if TYPE_CHECKING:
    from rich.console import Console

    from kmnist_search.evaluation.metrics import Reference
    from kmnist_search.references.result_folder import ReferenceTable
    from kmnist_search.run.options import RunOptions
    from kmnist_search.run.search import Search
    from kmnist_search.study_file.schema import ComparisonFile


@click.command(epilog="Example: kmnist-search references --only S4 --seeds 3")
@click.option(
    "--only", multiple=True, metavar="SYSTEM", help="S0 to S4, or one setting of them, such as S2-3; may be repeated."
)
@click.option("--seeds", type=click.IntRange(1, 1000), default=3, show_default=True, help="Trainings of each setting.")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs at most.  [default: as many as published]")
@click.option(
    "--name", metavar="NAME", default="references", show_default=True, help="Name of the study in the storage."
)
@click.option(
    "--out",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    default=Path("references"),
    show_default=True,
    help="Folder of table and page; an earlier one is replaced.",
)
@work_options
@json_option
def references(
    only: Sequence[str],
    out: Path,
    options: "RunOptions",
    as_json: bool,
    **size: Any,
) -> None:
    """Reproduce five published systems and compare the accuracies.

    Each training is a trial of one study, so it can be stopped, resumed, and shared with workers. When all of
    them are finished, the test set is opened for each model once. Without --only, all settings of all reports
    are trained.
    """
    set_up_runtimes()

    from rich.console import Console

    from kmnist_search.data.files import default_data_dir
    from kmnist_search.references import result_folder, systems
    from kmnist_search.references.testing import check_test_files
    from kmnist_search.run.submission import prepare
    from kmnist_search.terminal.printing import print_line

    chosen, devices = systems.chosen(only), devices_here(options)
    file = systems.study_file(chosen, **size)
    result_folder.check_place(out)
    check_test_files(chosen, options.data_dir or default_data_dir())
    search = prepare(file, options.on(devices[0]))
    console = Console(stderr=as_json)
    _train(console, search, file, devices)
    comparison = _compare(console, search, chosen, out)
    if comparison is not None and as_json:
        print_json(comparison.model_dump(mode="json"))
    trained = sum(each.reproduced.seeds for each in comparison.references if each.reproduced) if comparison else 0
    if missing := len(file.enqueue) - trained:
        print_line(
            console,
            f"{missing} of {len(file.enqueue)} trainings did not finish; why: kmnist-search status {file.study.name}. "
            "The same command tries failed ones again.",
        )
        sys.exit(WORK_FAILED)


def _train(console: "Console", search: "Search", file: "ComparisonFile", devices: Sequence[str]) -> None:
    """Train the waiting trials, and wait for those that others train; after a signal end the process."""
    from kmnist_search.cli.run_workers import run_workers
    from kmnist_search.host.signals import StopSignals
    from kmnist_search.run.submission import prepare
    from kmnist_search.terminal.printing import print_line
    from kmnist_search.terminal.run_messages import announce
    from kmnist_search.watch.watch import watch

    if search.trials_left():
        places = search.places(devices)
        announce(console, search, places)
        if search.device.type == "cpu":
            _print_estimate(console, search, file, len(places))
        with StopSignals() as signals:
            stopped_by = run_workers(console, search, partial(prepare, file), places, signals=signals)
        if stopped_by == "signal":
            print_line(console, f"Stopped. To resume: {typed_command()}")
            sys.exit(INTERRUPTED)
    if search.counts().unfinished:
        watch(console, search.study, is_over=lambda status: not status.progress.counts.unfinished)


def _print_estimate(console: "Console", search: "Search", file: "ComparisonFile", workers: int) -> None:
    """Print how long all trainings take on this CPU, by the pace of a middling net, measured for two seconds."""
    from kmnist_search.config.cost import flops_per_image
    from kmnist_search.engine.estimate import seconds_per_epoch
    from kmnist_search.references.systems import flops
    from kmnist_search.terminal.printing import print_line
    from kmnist_search.wording import duration_text

    config, images = file.middle(), search.data.train_images
    data = search.data.of(file.datas_of(file.enqueue)[0])
    epoch = 3.0 * images * flops_per_image(config.model)
    seconds = seconds_per_epoch(config, data) * flops(file, images) / epoch / workers
    print_line(
        console, f"all trainings take about {duration_text(seconds)} on this CPU; for less: --only, --epochs, --seeds"
    )


def _compare(console: "Console", search: "Search", chosen: "Sequence[Reference]", out: Path) -> "ReferenceTable | None":
    """Test the trained models, and write and show the table; None if no model is trained."""
    from kmnist_search.evaluation.lock import alone
    from kmnist_search.references import result_folder, results, testing
    from kmnist_search.terminal.references import conclude, follow

    trained = results.requested(results.trained(search.study), search.file.enqueue)
    if not trained:
        return None
    with alone(search.study):
        test = testing.Test(search.study, trained, search.data.data_dir)
        before = {each.trained.number for each in results.tested(test.ledger, trained)}
        tested = follow(console, test.work(), len(trained), before=before)
        comparison = result_folder.compare(chosen, test, tested, command=typed_command())
        result_folder.write(out, comparison, test, search.data.data_dir)
    conclude(console, comparison, out)
    return comparison
