"""Serve optuna-dashboard for a storage. Knows nothing of training."""

import ipaddress
from typing import Any

from kmnist_search.errors import InputError
from kmnist_search.storage import Storage


def check_host(host: str, *, is_open: bool) -> None:
    """Refuse an address that others may reach, unless that is wanted: the dashboard has no login.

    Raises:
        InputError: it is another address than this machine's own, and not wanted.
    """
    if is_open or host == "localhost":
        return
    try:
        is_own = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_own = False
    if not is_own:
        raise InputError(
            f"--host {host}: the dashboard has no login, and whoever can reach it can change and delete studies. "
            "From elsewhere use ssh -L 8080:127.0.0.1:8080; where only your own containers reach the address, "
            "add --i-know-it-is-open."
        )


def server(storage: Storage, host: str, port: int) -> Any:
    """Return a waitress server that listens on `port` (0: any free one, see `effective_port`) and waits for `run()`.

    Raises:
        InputError: the address or the port cannot be had.
    """
    import optuna_dashboard
    import waitress

    try:
        return waitress.create_server(optuna_dashboard.wsgi(storage.rdb), host=host, port=port)
    except (OSError, OverflowError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"port {port} of {host} cannot be used: {reason}. Choose another with --port.") from None
