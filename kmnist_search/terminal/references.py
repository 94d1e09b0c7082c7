"""The lines and the table of `references` in a terminal."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kmnist_search.evaluation.metrics import Reference
from kmnist_search.references.result_folder import ReferenceTable
from kmnist_search.references.results import TestedSystem, system_of
from kmnist_search.terminal.printing import print_line
from kmnist_search.wording import percent, points


def show_test(console: Console, tested: TestedSystem, number: int, total: int, *, before: bool) -> None:
    """Show the test of one system, which was done `before` or now."""
    trained, last, best = tested.trained, percent(tested.last.accuracy), percent(tested.best.accuracy)
    what = f"{'was tested before' if before else 'tested'}: {system_of(trained)}, trial {trained.number}"
    print_line(console, f"[{number}/{total}] {what}: {last} after the last epoch, {best} after the best")


def conclude(console: Console, comparison: ReferenceTable, folder: Path) -> None:
    """Show the table and its folder."""
    console.print(_table(comparison))
    print_line(
        console, "Test accuracies; ± is the standard deviation over seeds; the best epoch is that on validation images."
    )
    for reference in comparison.references:
        if reference.remark and (ours := reference.reproduced):
            accuracies = f"published {percent(reference.train_accuracy)}, ours {percent(ours.train_accuracy)}"
            print_line(console, f"* {reference.name}: {reference.remark} They are: {accuracies}.")
    print_line(console, f"table: {folder / 'references.md'}    pictures: {folder / 'references.html'}")


def _table(comparison: ReferenceTable) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("system", no_wrap=True)
    for title in ("published", "ours", "difference", "at best epoch", "epochs", "seconds"):
        table.add_column(title, justify="right", no_wrap=True)
    for reference in comparison.references:
        if reference.reproduced:
            table.add_row(*_row(reference))
    return table


def _row(reference: Reference) -> Iterator[str]:
    ours = reference.reproduced
    assert ours is not None
    spread = "" if ours.test_accuracy_sd is None else f" ±{100 * ours.test_accuracy_sd:.2f}"
    yield reference.name
    yield percent(reference.accuracy) + ("" if reference.measured_on == "test" else "*")
    yield percent(ours.test_accuracy) + spread
    yield points(reference.difference) or "-"
    yield percent(ours.best_test_accuracy)
    yield f"{ours.epochs}" if ours.epochs == reference.epochs else f"{ours.epochs}/{reference.epochs}"
    yield f"{ours.seconds:.0f}"
