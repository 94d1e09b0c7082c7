"""The command `doctor`, which says what works on this machine.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

import dataclasses
import sys
from pathlib import Path

import click

from kmnist_search.cli.options import (
    WORK_FAILED,
    checkpoints_option,
    data_dir_option,
    json_option,
    print_json,
    storage_option,
)


@click.command(epilog="Example: kmnist-search doctor --storage postgresql://user@host/database")
@storage_option
@checkpoints_option
@data_dir_option
@json_option
def doctor(storage_url: str, checkpoint_dir: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Say what works on this machine, and what to do about the rest.

    Checks versions, GPUs, images, database, checkpoints and clusters; changes nothing. On a GPU it compares kernels and
    CUDA graphs with plain torch, which takes up to a minute. Exit code 1 if something is bad. Bug reports are best with
    the output of --json, which contains no password.
    """
    from rich.console import Console

    from kmnist_search.doctor.examination import Subject, examine
    from kmnist_search.terminal.doctor import show

    console = Console()
    findings = examine(
        Subject(
            storage_url=storage_url,
            checkpoint_dir=checkpoint_dir,
            data_dir=data_dir,
            encoding=sys.stdout.encoding,
            columns=console.width,
            is_terminal=console.is_terminal,
        )
    )
    if as_json:
        found = list(findings)
        print_json([dataclasses.asdict(finding) for finding in found])
    else:
        found = show(console, findings)
    if any(finding.state == "bad" for finding in found):
        sys.exit(WORK_FAILED)
