"""The command `references`: train the published systems, test them, and compare.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kmnist_search.cli.options import (
    WORK_FAILED,
    json_option,
    print_json,
    typed_command,
)
from kmnist_search.cli.work_options import desk_at, devices_here, work_options

if TYPE_CHECKING:
    from rich.console import Console

    from kmnist_search.evaluation.metrics import Reference
    from kmnist_search.evaluation.trained import Trained
    from kmnist_search.references.result_folder import ReferenceTable
    from kmnist_search.run.options import RunOptions
    from kmnist_search.run.search import Search
    from kmnist_search.saved_model.packed import PackedModel
    from kmnist_search.study_file.schema import PlanFile, Which


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
    from rich.console import Console

    from kmnist_search.data.files import default_data_dir
    from kmnist_search.evaluation.testing import check_test_files
    from kmnist_search.evaluation.trained import kept, over
    from kmnist_search.references import result_folder, systems
    from kmnist_search.run.submission import prepare
    from kmnist_search.terminal.printing import print_line
    from kmnist_search.worker.stop import Limits
    from kmnist_search.worker.trial_models import TrialModels

    chosen, device = systems.chosen(only), devices_here(options)[0]
    file = systems.study_file(chosen, **size)
    result_folder.check_place(out)
    check_test_files((reference.dataset for reference in chosen), options.data_dir or default_data_dir())
    options = replace(options, limits=Limits(waits="for others"))
    console = Console(stderr=as_json)
    while True:
        search = prepare(file, options.on(device))
        _train(console, search, file, options)
        trained = [each for each in over(search.study, file.trainings) if each is not None and not each.diverged]
        models = kept(search.study, trained, TrialModels(search.store))
        if len(models) == len(trained):  # else the models of some are gone: they are trained again
            break
    comparison = _compare(console, search, chosen, trained, models, out) if trained else None
    if comparison is not None and as_json:
        print_json(comparison.model_dump(mode="json"))
    if missing := len(file.trainings) - len(trained):
        print_line(
            console,
            f"{missing} of {len(file.trainings)} trainings did not finish; why: kmnist-search status "
            f"{file.study.name}. The same command tries failed ones again.",
        )
        sys.exit(WORK_FAILED)


def _train(console: "Console", search: "Search", file: "PlanFile", options: "RunOptions") -> None:
    """Train the waiting trials, and wait for those that others train; after a signal end the process."""
    from kmnist_search.api.work import let_go_on
    from kmnist_search.run.submission import prepare
    from kmnist_search.terminal.run_messages import announce

    if not search.counts().unfinished:
        return
    desk = desk_at(console, devices_here(options))
    places = search.places(desk.devices)
    let_go_on(console, search.study)
    announce(console, search, places)
    if search.device.type == "cpu":
        _print_estimate(console, search, file, len(places))
    desk.train(search, partial(prepare, file))


def _print_estimate(console: "Console", search: "Search", file: "PlanFile", workers: int) -> None:
    """Print how long all trainings take on this CPU, by the pace of a middling net, measured for two seconds."""
    from kmnist_search.config.cost import flops_per_image
    from kmnist_search.engine.estimate import seconds_per_epoch
    from kmnist_search.terminal.printing import print_line
    from kmnist_search.wording import duration_text

    config = file.middle()
    epoch = 3.0 * flops_per_image(config.model)
    seconds = seconds_per_epoch(config, search.data.of(file.datas()[0]))
    left = seconds * sum(each.flops for each in file.trainings) / epoch / workers
    print_line(
        console, f"all trainings take about {duration_text(left)} on this CPU; for less: --only, --epochs, --seeds"
    )


def _compare(
    console: "Console",
    search: "Search",
    chosen: "Sequence[Reference]",
    trained: "Sequence[Trained]",
    models: "Mapping[int, Mapping[Which, PackedModel]]",
    out: Path,
) -> "ReferenceTable":
    """Freeze all recipes, test the models one after the other, and write and show the table."""
    from kmnist_search.evaluation.ledger import Ledger
    from kmnist_search.evaluation.lock import alone
    from kmnist_search.evaluation.testing import Examination
    from kmnist_search.evaluation.trained import recipes
    from kmnist_search.references import result_folder
    from kmnist_search.references.results import TestedSystem
    from kmnist_search.terminal.references import conclude, show_test

    ledger, tested = Ledger(search.study), []
    with alone(search.study):
        examination = Examination(ledger, recipes(trained), search.data.data_dir)
        for number, each in enumerate(trained, start=1):
            last, best = (examination.look(models[each.number][which]) for which in each.spec.keeps)
            tested.append(TestedSystem(trained=each, last=last.opening, best=best.opening))
            show_test(console, tested[-1], number, len(trained), before=last.from_ledger and best.from_ledger)
        comparison = result_folder.compare(chosen, ledger, tested, command=typed_command())
        result_folder.write(out, comparison, examination, tested, models)
    conclude(console, comparison, out)
    return comparison
