"""Mends what optuna-dashboard's page does not say or misunderstands. Knows nothing of what it shows."""

from collections.abc import Iterable
from importlib.resources import files
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug import Request, Response

SCRIPT_PATH = "/kmnist-search/banner.js"
#: Before the page's own script, which asks as soon as it runs.
PLACE = b"<head>"


class MendedPage:
    """A WSGI application around that of optuna-dashboard.

    The page is given a script that shows why something failed, which it keeps to itself.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self._script = files(__package__).joinpath("banner.js").read_bytes()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")  # it fails where this is missing
        return self._response(Request(environ))(environ, start_response)

    def _response(self, request: Request) -> Response:
        if request.path == SCRIPT_PATH:
            script = Response(self._script, mimetype="text/javascript")
            script.add_etag()
            return script.make_conditional(request)
        response = Response.from_app(self._app, request.environ)
        if response.status_code == 204 and request.path.startswith("/api/"):
            # The page reads JSON from every answer, and takes one without a body for a failure.
            response = Response("{}", 200, mimetype="application/json")
        elif request.method == "GET" and response.status_code == 200 and _is_page(request, response):
            response.data = response.get_data().replace(
                PLACE, PLACE + f'<script src="{SCRIPT_PATH}"></script>'.encode()
            )
            for name in ("ETag", "Last-Modified"):  # of the page as it was
                response.headers.remove(name)
        return response


def _is_page(request: Request, response: Response) -> bool:
    return request.path.startswith("/dashboard") and response.mimetype == "text/html"
