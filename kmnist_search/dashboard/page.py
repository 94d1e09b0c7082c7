"""Patches of optuna-dashboard's page: a script that shows error messages, a width, and responses that it misreads."""

from collections.abc import Iterable
from importlib.resources import files
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug import Request, Response

FOLDER = "/kmnist-search/"
#: Files of this package that the page loads, and their types.
FILES = {"banner.js": "text/javascript", "page.css": "text/css"}
#: Before the page's own script, which sends requests as soon as it runs.
PLACE = b"<head>"
TAGS = f'<script src="{FOLDER}banner.js"></script><link rel="stylesheet" href="{FOLDER}page.css">'.encode()


class PatchedPage:
    """A WSGI application around optuna-dashboard's, whose page outgrows the window and hides why a request failed."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self._files = {
            FOLDER + name: (files(__package__).joinpath(name).read_bytes(), mimetype)
            for name, mimetype in FILES.items()
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")  # optuna-dashboard fails if this is missing
        return self._response(Request(environ))(environ, start_response)

    def _response(self, request: Request) -> Response:
        if request.path in self._files:
            content, mimetype = self._files[request.path]
            file = Response(content, mimetype=mimetype)
            file.add_etag()
            return file.make_conditional(request)
        response = Response.from_app(self._app, request.environ)
        if response.status_code == 204 and request.path.startswith("/api/"):
            # The page reads JSON from every response, and takes one without a body as a failure.
            response = Response("{}", 200, mimetype="application/json")
        elif request.method == "GET" and response.status_code == 200 and _is_page(request, response):
            response.data = response.get_data().replace(PLACE, PLACE + TAGS)
            for name in ("ETag", "Last-Modified"):  # of the page without these tags
                response.headers.remove(name)
        return response


def _is_page(request: Request, response: Response) -> bool:
    return request.path.startswith("/dashboard") and response.mimetype == "text/html"
