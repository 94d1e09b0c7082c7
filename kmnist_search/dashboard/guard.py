"""Refuses what other web pages make a browser send, and changes where there shall be none. Knows no password."""

from collections.abc import Iterable
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug import Request

from kmnist_search.dashboard.address import is_own
from kmnist_search.dashboard.answers import answer

READING_METHODS = ("GET", "HEAD", "OPTIONS")


class Guard:
    """A WSGI application around another one.

    Args:
        app: the other one.
        is_private: whether it is for this machine alone and has no password: then it answers to this machine's own
            names only. Any web page can give its own name this machine's address, and would be let in by it.
        is_read_only: whether nothing shall be changed.
    """

    def __init__(self, app: WSGIApplication, *, is_private: bool, is_read_only: bool) -> None:
        self._app, self._is_private, self._is_read_only = app, is_private, is_read_only

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        reason = self._reason_against(request)
        if reason is not None:
            return answer(request, 403, reason)(environ, start_response)
        return self._app(environ, start_response)

    def _reason_against(self, request: Request) -> str | None:
        if self._is_private and not is_own(_name(request.headers.get("Host", ""))):
            return (
                "This dashboard has no password and answers to this machine's own names alone, such as 127.0.0.1. "
                "To reach it by another name give it a password with --password-file."
            )
        if request.method in READING_METHODS:
            return None
        if _is_from_elsewhere(request):
            return "Another web page asked for this change, so nothing was changed."
        if self._is_read_only:
            return "This dashboard is read-only, so nothing was changed."
        return None


def _is_from_elsewhere(request: Request) -> bool:
    """Return whether a browser says that another page than the dashboard's asks; what is no browser says nothing."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    # Only a page that came by HTTPS or from this machine has that header.
    origin = request.headers.get("Origin")
    return origin is not None and origin.partition("://")[2] != request.headers.get("Host")


def _name(host: str) -> str:
    """Return the name or the address in a Host header."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
