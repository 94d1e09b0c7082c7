"""The command that measures this machine: parse, call one function, print.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

import sys
from pathlib import Path

import click

from kmnist_search.cli.options import INTERRUPTED, data_dir_option, device_option, json_option, print_json


@click.command(epilog="Example: kmnist-search bench --device cuda --json")
@device_option
@data_dir_option
@json_option
def bench(device: str, data_dir: Path | None, as_json: bool) -> None:
    """Measure how fast this machine trains, and how many trials at once are worth it.

    Three nets, alone and several at once, beside the loops that most people write: a DataLoader, images on the device,
    torch.compile. It takes a minute or two, downloads nothing and keeps nothing.
    """
    from rich.console import Console

    from kmnist_search.bench.images import images_in
    from kmnist_search.bench.measurement import measured, plan_for
    from kmnist_search.bench.nets import nets_for
    from kmnist_search.bench.report import as_json as report_as_json
    from kmnist_search.bench.testbeds import testbed_for
    from kmnist_search.data.files import default_data_dir
    from kmnist_search.engine.device import device_named
    from kmnist_search.terminal.bench import follow, report_view

    chosen = device_named(device)
    folder = data_dir or default_data_dir()
    console = Console(stderr=True)
    try:
        images = images_in(folder)
        with testbed_for(chosen, images.data, folder) as testbed:
            report = follow(console, measured(testbed, plan_for(chosen, nets_for(chosen.type)), images.source))
    except KeyboardInterrupt:
        click.echo("Interrupted. Nothing was kept.", err=True)
        sys.exit(INTERRUPTED)
    if as_json:
        print_json(report_as_json(report))
    else:
        Console().print(report_view(report))
