"""The command that serves the dashboard: parse, call one function, print.

Imports that take time wait inside the command, so that `--help` answers at once.
"""

import click

from kmnist_search.cli_options import storage_option


@click.command(epilog="Example: kmnist-search dashboard --port 8080")
@storage_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0 takes a free one."
)
@click.option(
    "--i-know-it-is-open",
    "is_open",
    is_flag=True,
    help="Listen on another address than this machine's own: whoever can reach it can change and delete studies.",
)
def dashboard(storage_url: str, host: str, port: int, is_open: bool) -> None:
    """Serve optuna-dashboard until Ctrl-C, to this machine alone."""
    from kmnist_search.dashboard import check_host, server
    from kmnist_search.storage import open_storage

    check_host(host, is_open=is_open)
    storage = open_storage(storage_url, create=False)
    serving = server(storage, host, port)
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"Dashboard of {storage.shown_url}: http://{shown}:{serving.effective_port}/dashboard  (Ctrl-C ends it)")
    serving.run()
