"""The command line, put together from its commands. Nothing imports this."""

import click

from kmnist_search.cli_bench import bench
from kmnist_search.cli_best import best
from kmnist_search.cli_dashboard import dashboard
from kmnist_search.cli_kubernetes import kubernetes
from kmnist_search.cli_model import export, predict
from kmnist_search.cli_options import Commands
from kmnist_search.cli_references import references
from kmnist_search.cli_report import report
from kmnist_search.cli_run import run
from kmnist_search.cli_slurm import slurm
from kmnist_search.cli_status import status
from kmnist_search.cli_studies import studies
from kmnist_search.cli_submit import submit
from kmnist_search.cli_worker import worker


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: kmnist-search run quickstart --trials 20",
)
@click.version_option(package_name="kmnist-search")
def main() -> None:
    """Search the best patch-MLP for KMNIST, and keep every trial."""


for command in (run, worker, submit, status, best, report, references, studies, predict, export, bench, dashboard):
    main.add_command(command)
submit.add_command(kubernetes)
submit.add_command(slurm)


if __name__ == "__main__":
    main()
