"""The login: one user, whose password is in a file, and the application that asks for it (HTTP Basic)."""

import hashlib
import hmac
import logging
import math
import os
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug import Request, Response

from kmnist_search.dashboard.error_pages import error_response
from kmnist_search.dashboard.rate_limit import LoginRateLimit
from kmnist_search.errors import InputError

#: Answers without a password that the server runs, for health checks.
HEALTH_PATH = "/health"
#: Set in browsers that have logged in once. They are not slowed down by others who guess behind the same proxy.
COOKIE = "kmnist_search_has_been_in"
CHALLENGE = 'Basic realm="kmnist-search dashboard", charset="UTF-8"'
MAX_BYTES = 1024

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Login:
    """The one user. The password is not part of its `repr`."""

    user: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.user or ":" in self.user or not self.user.isprintable():
            raise InputError(f"--user {self.user!r}: a user name must not be empty or contain a colon. Choose another.")

    def admits(self, user: str, password: str) -> bool:
        """Return whether these are right, in a time that does not depend on what is wrong."""
        user_is_right = hmac.compare_digest(_digest(user), _digest(self.user))
        password_is_right = hmac.compare_digest(_digest(password), _digest(self.password))
        return user_is_right and password_is_right


def _digest(text: str) -> bytes:
    """Return the same number of bytes for every text, so that the time to compare them does not tell its length."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def read_password(file: Path) -> str:
    """Return the one line of a file that nobody else may read.

    Raises:
        InputError: the file cannot be read, is open to others, or is not one line.
    """
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"--password-file {file} cannot be read: {error.strerror}. Make it with: "
            f"(umask 077 && openssl rand -hex 12 > {file})"
        ) from None
    _check_rights(file, status)
    return _one_line(file, content)


def _check_rights(file: Path, status: os.stat_result) -> None:
    # A file of root's may be readable by a group: schedulers of containers hand out secrets like that.
    others = stat.S_IRWXO | (stat.S_IWGRP if status.st_uid == 0 else stat.S_IRWXG)
    if status.st_mode & others:
        raise InputError(
            f"--password-file {file}: other users can read or change it (mode {stat.S_IMODE(status.st_mode):o}). "
            f"Restrict it to yourself with: chmod 600 {file}"
        )


def _one_line(file: Path, content: bytes) -> str:
    advice = "Write the password into it, on one line, and nothing else."
    if len(content) > MAX_BYTES:
        raise InputError(f"--password-file {file} has more than {MAX_BYTES} bytes. {advice}")
    try:
        password = content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise InputError(f"--password-file {file} is not UTF-8. {advice}") from None
    if not password.strip():
        raise InputError(f"--password-file {file} is empty. {advice}")
    if not password.isprintable():
        raise InputError(f"--password-file {file} has several lines, or control characters. {advice}")
    return password


class LoginRequired:
    """A WSGI application that asks for a user name and a password (HTTP Basic) before another one.

    Wrong passwords are counted by the address of the connection: headers in which a proxy names the address of the
    browser can be sent by anybody.

    Args:
        app: the other application.
        login: the user; None lets everybody in.
    """

    def __init__(self, app: WSGIApplication, login: Login | None) -> None:
        self._app, self._login = app, login
        self._failed = LoginRateLimit()
        self._cookie = secrets.token_urlsafe()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        if request.path == HEALTH_PATH:
            return Response("ok\n", mimetype="text/plain")(environ, start_response)
        if self._login is None:
            return self._app(environ, start_response)
        is_known = self._is_known(request)
        refusal = self._refusal(request, self._login, is_known=is_known)
        if refusal is not None:
            return refusal(environ, start_response)
        if is_known:
            return self._app(environ, start_response)
        response = Response.from_app(self._app, environ)
        response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="Strict")
        return response(environ, start_response)

    def _refusal(self, request: Request, login: Login, *, is_known: bool) -> Response | None:
        """Return the response to a request without a valid login; None if the login is valid."""
        given = request.authorization
        if given is None or given.type != "basic" or given.username is None or given.password is None:
            return _challenge(request, "This dashboard asks for a user name and a password.")
        address = request.remote_addr or ""
        seconds = 0.0 if is_known else self._failed.seconds_to_wait(address)
        if seconds:
            message = "Too many wrong passwords came from your address. Try again in a moment."
            return error_response(request, 429, message, retry_after=math.ceil(seconds))
        if not login.admits(given.username, given.password):
            logger.warning("A wrong user name or password came from %s.", address)
            return _challenge(request, "The user name or the password is wrong.")
        if not is_known:
            self._failed.give_back(address)
        return None

    def _is_known(self, request: Request) -> bool:
        return hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), self._cookie.encode())


def _challenge(request: Request, message: str) -> Response:
    response = error_response(request, 401, message)
    response.headers["WWW-Authenticate"] = CHALLENGE
    return response
