"""Answers of this server's own: why something failed or was refused, as JSON, as a page or as text."""

import html
import json
import logging
from collections.abc import Iterable
from importlib.resources import files
from string import Template
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug import Request, Response

from kmnist_search.dashboard.storage import DashboardStorage
from kmnist_search.errors import KmnistSearchError, ReadOnlyError, StorageEmptyError

RETRY_SECONDS = 5

logger = logging.getLogger(__name__)


def error_response(
    request: Request,
    status: int,
    message: str,
    *,
    title: str = "Kmnist-search dashboard",
    retry_after: int | None = None,
) -> Response:
    """Return a message as JSON with a `reason`, as a page, or as plain text.

    Args:
        request: its path decides which of the three.
        status: of HTTP.
        message: a sentence for a person.
        title: of the page.
        retry_after: seconds after which to ask again; a page does so by itself.
    """
    headers: dict[str, Any] = {} if retry_after is None else {"Retry-After": retry_after}
    if request.path.startswith("/api/"):
        return Response(json.dumps({"reason": message}), status, headers, mimetype="application/json")
    if request.path not in ("", "/") and not request.path.startswith("/dashboard"):
        return Response(f"{message}\n", status, headers, mimetype="text/plain")
    more = ""
    if retry_after is not None:
        headers["Refresh"] = retry_after
        more = f"This page tries again every {retry_after} seconds."
    template = Template(files(__package__).joinpath("error.html").read_text())
    page = template.substitute(title=html.escape(title), message=html.escape(message), more=more)
    return Response(page, status, headers, mimetype="text/html")


class StorageErrorPages:
    """A WSGI application around those that read a database: it answers errors of the database with a message."""

    def __init__(self, app: WSGIApplication, storage: DashboardStorage) -> None:
        self._app, self._storage = app, storage

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        self._storage.forget_error()
        try:
            if request.path.startswith("/dashboard"):
                self._storage.get_all_studies()  # the page itself asks for nothing, and its first request would fail
            response = Response.from_app(self._app, environ)
            if self._storage.error is not None:
                response.close()
                response = _storage_error(request, self._storage.error)
        except KmnistSearchError as error:
            response = _storage_error(request, error)
        return response(environ, start_response)


def _storage_error(request: Request, error: KmnistSearchError) -> Response:
    if isinstance(error, ReadOnlyError):
        return error_response(request, 403, str(error))
    title = "There are no studies yet" if isinstance(error, StorageEmptyError) else "The database is away"
    return error_response(request, 503, str(error), title=title, retry_after=RETRY_SECONDS)


def without_tracebacks(app: WSGIApplication) -> WSGIApplication:
    """Return the application such that the traceback of a bug is logged and not sent."""

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return app(environ, start_response)
        except Exception:
            request = Request(environ)
            logger.exception("%s %s failed:", request.method, request.path)
            message = "The dashboard failed to answer this request. Its log says why."
            return error_response(request, 500, message, title="Something went wrong")(environ, start_response)

    return respond
