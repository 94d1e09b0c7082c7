"""The server put together: what a request goes through on its way to optuna-dashboard, and back."""

from dataclasses import dataclass
from typing import Any
from wsgiref.types import WSGIApplication

import optuna_dashboard
import optuna_dashboard._importance as importance
import waitress

from kmnist_search.dashboard.address import is_own
from kmnist_search.dashboard.compression import with_compression
from kmnist_search.dashboard.database import Database
from kmnist_search.dashboard.details import Details
from kmnist_search.dashboard.entrance import Entrance
from kmnist_search.dashboard.guard import Guard
from kmnist_search.dashboard.headers import with_headers
from kmnist_search.dashboard.login import Login
from kmnist_search.dashboard.page import MendedPage
from kmnist_search.dashboard.shown_storage import ShownStorage
from kmnist_search.dashboard.trouble import Explained, without_tracebacks
from kmnist_search.errors import InputError
from kmnist_search.optuna_internals import ArtifactStore

#: Of a request; what is uploaded is the largest, and comes before a password is looked at.
MAX_REQUEST_BYTES = 64 * 1024**2


@dataclass(frozen=True, kw_only=True)
class Manners:
    """Whom the server lets in, and what they may do.

    Attributes:
        host: the address that it listens on.
        login: None is that there is no password.
        is_read_only: whether nothing can be changed by it.
    """

    host: str
    login: Login | None = None
    is_read_only: bool = False


def application(database: Database, manners: Manners, artifact_store: ArtifactStore | None = None) -> WSGIApplication:
    """Return all of it but the listening.

    Args:
        database: of the studies.
        manners: whom it lets in.
        artifact_store: where the files are that studies and trials name.
    """
    storage = ShownStorage(database, is_read_only=manners.is_read_only)
    dashboard = optuna_dashboard.wsgi(storage, artifact_store=artifact_store)
    dashboard.catchall = False  # it would answer errors by itself, which `trouble` does

    def forget() -> None:
        dashboard._inmemory_cache.clear()
        importance.param_importance_cache.clear()

    storage.on_forgotten = forget
    app: WSGIApplication = Explained(with_compression(Details(MendedPage(dashboard), storage)), storage)
    is_private = manners.login is None and is_own(manners.host)
    app = Entrance(Guard(app, is_private=is_private, is_read_only=manners.is_read_only), manners.login)
    return with_headers(without_tracebacks(app))


def server(database: Database, manners: Manners, port: int, artifact_store: ArtifactStore | None = None) -> Any:
    """Return a waitress server that listens on `port` (0: any free one, see `effective_port`) and waits for `run()`.

    Raises:
        InputError: the address or the port cannot be had.
    """
    app, host = application(database, manners, artifact_store), manners.host
    try:
        return waitress.create_server(
            app, host=host, port=port, ident=None, max_request_body_size=MAX_REQUEST_BYTES, expose_tracebacks=False
        )
    except (OSError, OverflowError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"port {port} of {host} cannot be used: {reason}. Choose another with --port.") from None
