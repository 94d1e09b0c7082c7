"""A bench in a terminal: its progress, and its report as tables with a recommendation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from kmnist_search.bench.measurement import NetReport, Report
from kmnist_search.bench.nets import TRIAL_EPOCHS, TRIAL_IMAGES
from kmnist_search.terminal.printing import print_line
from kmnist_search.terminal.progress import labelled
from kmnist_search.wording import duration_text, percent


@contextmanager
def shown_stages(console: Console) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the present stage."""
    with console.status("Starting ...") as status:

        def show(stage: str) -> None:
            if console.is_terminal:
                status.update(f"Measuring: {stage} ...")
            else:
                print_line(console, f"measuring: {stage}")

        yield show


def report_view(report: Report) -> RenderableType:
    """Return the report as tables and sentences; the last line is the recommendation."""
    nets = [part for net in report.nets for part in ("", *_net_view(net))]
    notes = (
        "s/epoch: of 60,000 images, all trials at once together. set-up: until the first step. trials/hour: whole "
        f"trials of {TRIAL_EPOCHS} epochs of {TRIAL_IMAGES:,} images with validation, without pruning.",
        "p7 D64 32/128 k2: patches of 7x7, dim 64, token_width 32, channel_width 128, num_blocks 2.",
        "Recommended are the fewest trials at once within 3 % of the most trials an hour (green).",
        f"Measured in {duration_text(report.seconds)}. For programs: --json.",
    )
    last = Text(recommendation(report), style="bold")
    return Group(_machine_view(report), *nets, "", *(Text(note, style="dim") for note in notes), last)


def recommendation(report: Report) -> str:
    """Return how many trials to run at once, as an option of `run`, for each net with a different number."""
    option = "--per-gpu" if report.device_type == "cuda" else "--workers"
    names: dict[int, list[str]] = {}
    for net in report.nets:
        names.setdefault(net.recommended.trials, []).append(net.name)
    if len(names) == 1:
        return f"Recommended: kmnist-search run {option} {next(iter(names))}"
    choices = (f"{option} {trials} ({', '.join(those)})" for trials, those in names.items())
    return f"Recommended for kmnist-search run: {', '.join(choices)}"


def _machine_view(report: Report) -> RenderableType:
    peak = f"{_flops(report.peak_flops_per_second)} in {report.peak_precision} products of {report.peak_size:,} squared"
    facts = {
        "device": report.device,
        "machine": report.machine,
        "versions": "  ".join(f"{name} {version}" for name, version in report.versions.items()),
        "peak": peak,
    }
    return labelled([(name, Text(value)) for name, value in facts.items()])


def _net_view(net: NetReport) -> Iterator[RenderableType]:
    yield Text.assemble((net.name, "bold"), f"  {net.shape}  {net.parameters:,} parameters")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("at once", "s/epoch", "of peak", "set-up s", "trials/hour"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in net.at_once:
        table.add_row(
            str(each.trials),
            _seconds(each.epoch_seconds),
            percent(each.share_of_peak, 1),
            _seconds(net.setup_seconds) if each.trials == 1 else "",
            f"{each.trials_per_hour:.2f}" if each.trials_per_hour < 10 else f"{each.trials_per_hour:,.0f}",
            style="green" if each is net.recommended else "",
        )
    yield table
    if net.missing:
        yield Text(f"not measured: {net.missing}", style="yellow")


def _flops(per_second: float) -> str:
    return f"{per_second / 1e12:,.0f} TFLOP/s" if per_second >= 1e13 else f"{per_second / 1e9:,.0f} GFLOP/s"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}" if seconds < 1 else f"{seconds:.1f}" if seconds < 100 else f"{seconds:,.0f}"
