"""The command `report`: write a study as one web page.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

from pathlib import Path

import click

from kmnist_search.cli.options import force_option, storage_option, stored_study, study_argument


@click.command(epilog="Example: kmnist-search report quickstart")
@study_argument
@click.option(
    "--out",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write.  [default: STUDY-report.html]",
)
@force_option
@storage_option
def report(study: str | None, file: Path | None, force: bool, storage_url: str) -> None:
    """Write the search as one web page, at any time.

    STUDY is its name in the storage; without it, the only one or the one last worked on. The page is complete: send
    it to anyone, open it anywhere.
    """
    from kmnist_search.errors import ReportError
    from kmnist_search.host.files import whole_file
    from kmnist_search.report.page import study_report

    found = stored_study(storage_url, study)
    file = file or Path(f"{found.name}-report.html")
    if file.exists() and not force:
        raise ReportError(f"{file} is there already. Choose another file with --out, or replace it with --force.")
    page = study_report(found)
    with whole_file(file, error=ReportError) as part:
        part.write_text(page, encoding="utf-8")
    click.echo(f"report on study {found.name} is in {file}")
