"""Cache of optuna-dashboard's largest answer: a study with all its trials, kept until something in it changes."""

import gzip
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug import Request, Response

from kmnist_search.dashboard.compression import LEVEL, takes_gzip
from kmnist_search.dashboard.storage import DashboardStorage

PATH = re.compile(r"/api/studies/(\d+)/*")
#: Answers kept. Browsers that were opened at different times ask for different trials; one for 5,000 trials is 1 MB.
MAX_KEPT = 16


class AnswerCache:
    """A WSGI application around optuna-dashboard's. It keeps answers compressed, and sends 304 if nothing changed."""

    def __init__(self, app: WSGIApplication, storage: DashboardStorage) -> None:
        self._app, self._storage = app, storage
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], tuple[str, bytes]] = OrderedDict()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        match, after = PATH.fullmatch(request.path), request.args.get("after", "0")
        if match is None or request.method != "GET" or not after.isdecimal():
            return self._app(environ, start_response)
        try:
            edition = self._storage.study(int(match[1])).edition
        except KeyError:
            return self._app(environ, start_response)
        return self._response(request, int(match[1]), int(after), edition)(environ, start_response)

    def _response(self, request: Request, study_id: int, after: int, edition: str) -> Response:
        response = Response(mimetype="application/json")
        response.vary.add("Accept-Encoding")
        response.set_etag(f"{edition}-{after}", weak=True)
        if request.if_none_match.contains_weak(response.get_etag()[0] or ""):
            return Response(status=304, headers=response.headers)
        with self._lock:
            known_edition, content = self._kept.get((study_id, after), ("", b""))
            if known_edition != edition:
                answer = Response.from_app(self._app, request.environ)
                if answer.status_code != 200:
                    return answer
                content = gzip.compress(answer.get_data(), LEVEL)
                self._kept[study_id, after] = edition, content
            self._kept.move_to_end((study_id, after))
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        if takes_gzip(request):
            response.data = content
            response.headers["Content-Encoding"] = "gzip"
        else:
            response.data = gzip.decompress(content)
        return response
