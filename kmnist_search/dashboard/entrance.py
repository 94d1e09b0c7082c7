"""Lets in who knows the password (HTTP Basic). Knows nothing of what lies behind."""

import hmac
import logging
import math
import secrets
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug import Request, Response

from kmnist_search.dashboard.answers import answer
from kmnist_search.dashboard.failed_logins import FailedLogins
from kmnist_search.dashboard.login import Login

#: Says only that the server answers, so that whoever watches over it needs no password.
HEALTH_PATH = "/health"
#: Of browsers that have been let in once: others behind the same proxy that guess do not hold them up.
COOKIE = "kmnist_search_has_been_in"
CHALLENGE = 'Basic realm="kmnist-search dashboard", charset="UTF-8"'

logger = logging.getLogger(__name__)


class Entrance:
    """A WSGI application around another one.

    An address is the one that the connection comes from: what a proxy says of others, anybody can say.
    """

    def __init__(self, app: WSGIApplication, login: Login | None) -> None:
        self._app, self._login = app, login
        self._failed = FailedLogins()
        self._cookie = secrets.token_urlsafe()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        if request.path == HEALTH_PATH:
            return Response("ok\n", mimetype="text/plain")(environ, start_response)
        if self._login is None:
            return self._app(environ, start_response)
        was_in = self._was_in(request)
        refusal = self._refusal(request, self._login, was_in=was_in)
        if refusal is not None:
            return refusal(environ, start_response)
        if was_in:
            return self._app(environ, start_response)
        response = Response.from_app(self._app, environ)
        response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="Strict")
        return response(environ, start_response)

    def _refusal(self, request: Request, login: Login, *, was_in: bool) -> Response | None:
        """Return what to say to whoever may not enter; None if they may."""
        given = request.authorization
        if given is None or given.type != "basic" or given.username is None or given.password is None:
            return _challenge(request, "This dashboard asks for a user name and a password.")
        address = request.remote_addr or ""
        seconds = 0.0 if was_in else self._failed.seconds_to_wait(address)
        if seconds:
            sentence = "Too many wrong passwords came from your address. Try again in a moment."
            return answer(request, 429, sentence, retry_after=math.ceil(seconds))
        if not login.admits(given.username, given.password):
            logger.warning("A wrong user name or password came from %s.", address)
            return _challenge(request, "The user name or the password is wrong.")
        if not was_in:
            self._failed.give_back(address)
        return None

    def _was_in(self, request: Request) -> bool:
        return hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), self._cookie.encode())


def _challenge(request: Request, sentence: str) -> Response:
    response = answer(request, 401, sentence)
    response.headers["WWW-Authenticate"] = CHALLENGE
    return response
