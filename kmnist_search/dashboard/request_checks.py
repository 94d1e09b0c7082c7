"""Checks of each request: its host, its origin, and whether changes are allowed."""

from collections.abc import Iterable
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug import Request

from kmnist_search.dashboard.address import is_loopback
from kmnist_search.dashboard.error_pages import error_response

READING_METHODS = ("GET", "HEAD", "OPTIONS")


class RequestChecks:
    """A WSGI application that checks requests before another one gets them.

    Args:
        app: the other application.
        is_private: whether the server listens on this machine alone and has no password. It then accepts only this
            machine's own names as host, because any web page can let its own name point to this machine's address.
        is_read_only: whether requests that change something are refused.
    """

    def __init__(self, app: WSGIApplication, *, is_private: bool, is_read_only: bool) -> None:
        self._app, self._is_private, self._is_read_only = app, is_private, is_read_only

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        reason = self._reason_against(request)
        if reason is not None:
            return error_response(request, 403, reason)(environ, start_response)
        return self._app(environ, start_response)

    def _reason_against(self, request: Request) -> str | None:
        if self._is_private and not is_loopback(_name(request.headers.get("Host", ""))):
            return (
                "This dashboard has no password, so it answers only to names of this machine, such as 127.0.0.1. "
                "To reach it by another name, set a password with --password-file."
            )
        if request.method in READING_METHODS:
            return None
        if _is_from_elsewhere(request):
            return "Another web page asked for this change, so nothing was changed."
        if self._is_read_only:
            return "This dashboard is read-only, so nothing was changed."
        return None


def _is_from_elsewhere(request: Request) -> bool:
    """Return whether a browser says that the request comes from another page; other programs do not say."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    # Browsers send Sec-Fetch-Site only for pages that came by HTTPS or from this machine.
    origin = request.headers.get("Origin")
    return origin is not None and origin.partition("://")[2] != request.headers.get("Host")


def _name(host: str) -> str:
    """Return the name or address in a Host header."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
