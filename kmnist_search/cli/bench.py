"""The command `bench`, which measures this machine.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

import sys

import click

from kmnist_search.cli.options import (
    INTERRUPTED,
    device_option,
    json_option,
    print_json,
)


@click.command(epilog="Example: kmnist-search bench --device cuda --json")
@device_option
@json_option
def bench(device: str, as_json: bool) -> None:
    """Measure this machine and recommend trials at once.

    Measures the peak of the device, and three nets, each alone and several at once. The last line recommends how many
    trials to run at once. This takes about a minute, downloads nothing and keeps nothing.
    """
    from rich.console import Console

    from kmnist_search.bench import measurement
    from kmnist_search.bench.nets import nets_for
    from kmnist_search.bench.runners import runner_for
    from kmnist_search.engine import verdict
    from kmnist_search.engine.device import device_named
    from kmnist_search.host.resources import usable_cores
    from kmnist_search.terminal.bench import report_view, shown_stages

    chosen = device_named(device)
    for text in verdict.told(chosen):
        click.echo(text, err=True)
    try:
        with shown_stages(Console(stderr=True)) as show, runner_for(chosen, cores=usable_cores()) as runner:
            report = measurement.measure(runner, nets_for(chosen.type), on_stage=show)
    except KeyboardInterrupt:
        click.echo("Interrupted. Nothing was kept.", err=True)
        sys.exit(INTERRUPTED)
    if as_json:
        print_json(measurement.as_json(report))
    else:
        Console().print(report_view(report))
