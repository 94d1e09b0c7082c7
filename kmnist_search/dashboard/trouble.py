"""Answers for what went wrong: the database is away, a change is not allowed, a fault of the server's own.

Whoever runs the server reads the traceback of a fault, on stderr; a browser is told a sentence.
"""

import logging
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug import Request, Response

from kmnist_search.dashboard.answers import answer
from kmnist_search.dashboard.shown_storage import ShownStorage
from kmnist_search.errors import KmnistSearchError, ReadOnlyError, StorageEmptyError

RETRY_SECONDS = 5

logger = logging.getLogger(__name__)


class Explained:
    """A WSGI application around those that ask a database."""

    def __init__(self, app: WSGIApplication, storage: ShownStorage) -> None:
        self._app, self._storage = app, storage
        # It logs an error of the database with a traceback, once for each poll of each browser.
        logging.getLogger("optuna_dashboard._bottle_util").addFilter(lambda _: storage.trouble is None)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        self._storage.forget_trouble()
        try:
            if request.path.startswith("/dashboard"):
                self._storage.get_all_studies()  # the page itself asks nothing: a person would see it wait in vain
            response = Response.from_app(self._app, environ)
            if self._storage.trouble is not None:
                response.close()
                response = _explanation(request, self._storage.trouble)
        except KmnistSearchError as error:
            response = _explanation(request, error)
        return response(environ, start_response)


def _explanation(request: Request, error: KmnistSearchError) -> Response:
    if isinstance(error, ReadOnlyError):
        return answer(request, 403, str(error))
    title = "There are no studies yet" if isinstance(error, StorageEmptyError) else "The database is away"
    return answer(request, 503, str(error), title=title, retry_after=RETRY_SECONDS)


def without_tracebacks(app: WSGIApplication) -> WSGIApplication:
    """Return the application such that a fault is logged, and answered without saying what it was."""

    def asked(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return app(environ, start_response)
        except Exception:
            request = Request(environ)
            logger.exception("%s %s failed:", request.method, request.path)
            sentence = "The dashboard failed at this. Whoever runs it finds the reason where it was started."
            return answer(request, 500, sentence, title="Something went wrong")(environ, start_response)

    return asked
