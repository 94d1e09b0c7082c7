"""The dashboard server: optuna-dashboard with login, request checks, error pages, compression and a cache around it."""

from dataclasses import dataclass
from typing import Any
from wsgiref.types import WSGIApplication

import waitress

from kmnist_search.dashboard.address import is_loopback
from kmnist_search.dashboard.answer_cache import AnswerCache
from kmnist_search.dashboard.compression import with_compression
from kmnist_search.dashboard.database import Database
from kmnist_search.dashboard.error_pages import StorageErrorPages, without_tracebacks
from kmnist_search.dashboard.login import Login, LoginRequired
from kmnist_search.dashboard.page import PatchedPage
from kmnist_search.dashboard.request_checks import RequestChecks
from kmnist_search.dashboard.security_headers import with_security_headers
from kmnist_search.dashboard.storage import DashboardStorage
from kmnist_search.dashboard.trial_note import trial_note
from kmnist_search.errors import InputError
from kmnist_search.optuna_internals import ArtifactStore
from kmnist_search.optuna_internals.dashboard import dashboard_app, silence_dashboard_errors

#: Of a request. Uploads are the largest, and are received before the password is checked.
MAX_REQUEST_BYTES = 64 * 1024**2


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who can use the server, and for what.

    Attributes:
        host: the address to listen on.
        login: user and password; None asks for none.
        is_read_only: whether changes are refused.
    """

    host: str
    login: Login | None = None
    is_read_only: bool = False


def application(database: Database, access: Access, artifact_store: ArtifactStore | None = None) -> WSGIApplication:
    """Return the WSGI application.

    Args:
        database: the database of the studies.
        access: who can use it.
        artifact_store: the store of the artifacts of studies and trials.
    """
    storage = DashboardStorage(database, is_read_only=access.is_read_only)
    dashboard, storage.on_forgotten = dashboard_app(storage, artifact_store, trial_note)
    silence_dashboard_errors(lambda: storage.error is not None)
    app: WSGIApplication = AnswerCache(PatchedPage(dashboard), storage)
    app = StorageErrorPages(with_compression(app), storage)
    is_private = access.login is None and is_loopback(access.host)
    app = LoginRequired(RequestChecks(app, is_private=is_private, is_read_only=access.is_read_only), access.login)
    return with_security_headers(without_tracebacks(app))


def server(database: Database, access: Access, port: int, artifact_store: ArtifactStore | None = None) -> Any:
    """Return a waitress server that listens on `port` (0: any free one, see `effective_port`); `run()` serves.

    Raises:
        InputError: the address or the port cannot be used.
    """
    app, host = application(database, access, artifact_store), access.host
    try:
        return waitress.create_server(
            app, host=host, port=port, ident=None, max_request_body_size=MAX_REQUEST_BYTES, expose_tracebacks=False
        )
    except (OSError, OverflowError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"port {port} of {host} cannot be used: {reason}. Choose another with --port.") from None
