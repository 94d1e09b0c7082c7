"""What people see of a bench. Measures nothing."""

from collections.abc import Generator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kmnist_search.bench.nets import TRIAL_EPOCHS, TRIAL_IMAGES
from kmnist_search.bench.report import NetReport, Report


def follow(console: Console, stages: Generator[str, None, Report]) -> Report:
    """Say what is being measured until all is, and return the report."""
    with console.status("Starting ...") as status:
        while True:
            try:
                stage = next(stages)
            except StopIteration as end:
                report: Report = end.value
                return report
            if console.is_terminal:
                status.update(f"Measuring: {stage} ...")
            else:
                console.print(f"measuring: {stage}", soft_wrap=True, highlight=False, markup=False)


def report_view(report: Report) -> RenderableType:
    """Return the report as tables and sentences."""
    rows = Table.grid(padding=(0, 2))
    images = (
        "KMNIST" if report.images == "kmnist" else "noise of KMNIST's shape, since KMNIST is not in the data folder"
    )
    peak = f"{_flops(report.peak_flops_per_second)} in {report.peak_precision} products of {report.peak_size:,} squared"
    for name, value in (
        ("device", report.device),
        ("machine", report.machine),
        ("versions", "  ".join(f"{name} {version}" for name, version in report.versions.items())),
        ("images", images),
        ("peak", peak),
    ):
        rows.add_row(Text(name, style="dim"), Text(value))
    parts: list[RenderableType] = [rows]
    for net in report.nets:
        parts += ["", _net_view(net)]
    return Group(*parts, "", *(Text(line) for line in _sentences(report)))


def _net_view(net: NetReport) -> RenderableType:
    head = Text.assemble((net.name, "bold"), f"  {net.shape}  {net.num_parameters:,} weights")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    for column in ("s/epoch", "of peak", "set-up s", "trials/hour", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in net.at_once:
        name = f"ours, {each.trials} at once" if each.trials > 1 else "ours"
        setup = _seconds(net.setup_seconds) if each.trials == 1 else ""
        style = "green" if each is net.recommended else ""
        table.add_row(
            name,
            _seconds(each.epoch_seconds),
            f"{each.share_of_peak:.1%}",
            setup,
            _count(each.trials_per_hour),
            "",
            style=style,
        )
    notes = [net.missing] if net.missing else []
    for loop in net.comparisons:
        if loop.missing is not None:
            notes.append(f"{loop.name}: {loop.missing}")
            continue
        table.add_row(
            loop.name,
            _seconds(loop.epoch_seconds),
            "",
            _seconds(loop.setup_seconds),
            _count(loop.trials_per_hour),
            f"{loop.ratio:.1f} x",
        )
    return Group(head, table, *(Text(f"not measured: {note}", style="yellow") for note in notes))


def _sentences(report: Report) -> list[str]:
    advice = ", ".join(f"{net.recommended.trials} for the {net.name} net" for net in report.nets)
    kind = (
        "processes (`run --workers`)"
        if report.device.startswith("CPU")
        else "trainings in one process (`run --per-gpu`)"
    )
    return [
        f"Trials at once that are worth it here, as {kind}: {advice} (green; the fewest within 3 % of the best).",
        "s/epoch: 60,000 images at the pace measured, of all trials at once together. set-up s: until the first step.",
        f"A trial is {TRIAL_EPOCHS} epochs of {TRIAL_IMAGES:,} images with its validation, unpruned. "
        "time: of an epoch, ours alone being 1.",
        f"It took {report.seconds:.0f} s. For programs: --json.",
    ]


def _flops(per_second: float) -> str:
    return f"{per_second / 1e12:,.0f} TFLOP/s" if per_second >= 1e13 else f"{per_second / 1e9:,.0f} GFLOP/s"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.3f}" if seconds < 1 else f"{seconds:.1f}" if seconds < 100 else f"{seconds:,.0f}"


def _count(number: float | None) -> str:
    if number is None:
        return ""
    return f"{number:.2f}" if number < 10 else f"{number:,.0f}"
