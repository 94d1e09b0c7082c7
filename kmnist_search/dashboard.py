"""Serve optuna-dashboard for a storage. Knows nothing of training."""

from typing import Any

from kmnist_search.errors import InputError
from kmnist_search.storage import Storage

#: The dashboard has no login and can delete studies, so it listens on the loopback address alone.
HOST = "127.0.0.1"


def server(storage: Storage, port: int) -> Any:
    """Return a waitress server that listens on `port` (0: any free one, see `effective_port`) and waits for `run()`.

    Raises:
        InputError: the port cannot be had.
    """
    import optuna_dashboard
    import waitress

    try:
        return waitress.create_server(optuna_dashboard.wsgi(storage.rdb), host=HOST, port=port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"port {port} of {HOST} cannot be used: {reason}. Choose another with --port.") from None
