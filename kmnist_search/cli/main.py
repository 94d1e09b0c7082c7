"""The command line: all commands in one group."""

import click

from kmnist_search.cli.bench import bench
from kmnist_search.cli.best import best
from kmnist_search.cli.dashboard import dashboard
from kmnist_search.cli.doctor import doctor
from kmnist_search.cli.kubernetes import kubernetes
from kmnist_search.cli.model import export, predict
from kmnist_search.cli.options import Commands
from kmnist_search.cli.references import references
from kmnist_search.cli.report import report
from kmnist_search.cli.run import run
from kmnist_search.cli.slurm import slurm
from kmnist_search.cli.status import status
from kmnist_search.cli.steering import enqueue, pause, resume, retry, stop
from kmnist_search.cli.studies import studies
from kmnist_search.cli.submit import submit
from kmnist_search.cli.trials import trials
from kmnist_search.cli.worker import worker


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: kmnist-search run quickstart --trials 20",
)
@click.version_option(package_name="kmnist-search")
def main() -> None:
    """Search for the best patch-MLP for KMNIST, and keep every trial."""


for command in (
    run,
    worker,
    submit,
    status,
    trials,
    best,
    enqueue,
    retry,
    stop,
    pause,
    resume,
    report,
    references,
    studies,
    predict,
    export,
    bench,
    doctor,
    dashboard,
):
    main.add_command(command)
submit.add_command(kubernetes)
submit.add_command(slurm)
