"""The command `dashboard`: serves optuna-dashboard.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kmnist_search.cli.options import artifacts_option, storage_option

if TYPE_CHECKING:
    from kmnist_search.dashboard.database import Database
    from kmnist_search.dashboard.login import Login

DEFAULT_USER = "kmnist"


@click.command(epilog="Example: kmnist-search dashboard --host 0.0.0.0 --password-file ~/.kmnist-dashboard")
@storage_option
@artifacts_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--read-only", "is_read_only", is_flag=True, help="Refuse everything that would change a study.")
@click.option(
    "--user",
    envvar="KMNIST_SEARCH_DASHBOARD_USER",
    show_envvar=True,
    help=f"User name for the login.  [default: {DEFAULT_USER}]",
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    envvar="KMNIST_SEARCH_DASHBOARD_PASSWORD_FILE",
    show_envvar=True,
    help="File with the password on its only line; nobody else may read it.",
)
@click.option(
    "--i-know-it-is-open",
    "is_open",
    is_flag=True,
    help="Listen on other addresses without a password: anyone who can reach it may do anything.",
)
def dashboard(
    storage_url: str,
    artifacts: str | None,
    host: str,
    port: int,
    is_read_only: bool,
    user: str | None,
    password_file: Path | None,
    is_open: bool,
) -> None:
    """Serve optuna-dashboard for the browser until Ctrl-C.

    Without a password it listens to this machine only.
    """
    from kmnist_search.dashboard.address import check_host
    from kmnist_search.dashboard.database import Database
    from kmnist_search.dashboard.server import Access, server
    from kmnist_search.database.url import check_url
    from kmnist_search.study.artifacts import open_artifact_store

    login = _login(user, password_file, is_open=is_open)
    check_host(host, is_open=is_open, has_login=login is not None)
    database = Database(storage_url)
    _check_database(database)
    store = open_artifact_store(artifacts, check_url(storage_url))
    serving = server(database, Access(host=host, login=login, is_read_only=is_read_only), port, store)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{serving.effective_port}/dashboard"
    how = f"{', read-only' if is_read_only else ''}{f', user {login.user}' if login else ''}"
    click.echo(f"Dashboard of {database.shown_url}{how}: {url}  (Ctrl-C ends it)")
    serving.run()


def _login(user: str | None, password_file: Path | None, *, is_open: bool) -> "Login | None":
    from kmnist_search.dashboard.login import Login, read_password

    if password_file is None:
        if user is not None:
            raise click.UsageError(f"--user {user}: a user needs a password. Give its file with --password-file.")
        return None
    if is_open:
        raise click.UsageError("--password-file and --i-know-it-is-open exclude each other. Leave one of them out.")
    return Login(user=DEFAULT_USER if user is None else user, password=read_password(password_file))


def _check_database(database: "Database") -> None:
    """Print if there is nothing to show yet, or if the database is away; raise any other error."""
    from kmnist_search.errors import StorageAwayError, StorageEmptyError

    try:
        with database.opened():
            return
    except StorageEmptyError as error:
        click.echo(f"Nothing to show yet: {error}", err=True)
    except StorageAwayError:
        return  # `Database` has logged it
