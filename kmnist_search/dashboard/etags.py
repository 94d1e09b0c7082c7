"""ETags for optuna-dashboard's largest answer, a study with all its trials: 304 if nothing in the study changed."""

import re
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug import Request, Response

from kmnist_search.dashboard.storage import DashboardStorage

PATH = re.compile(r"/api/studies/(\d+)/*")


def with_study_etags(app: WSGIApplication, storage: DashboardStorage) -> WSGIApplication:
    """Return optuna-dashboard's application such that a browser that has the present state of a study gets 304."""

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        match, after = PATH.fullmatch(request.path), request.args.get("after", "0")
        if match is None or request.method != "GET" or not after.isdecimal():
            return app(environ, start_response)
        try:
            edition = storage.study(int(match[1])).edition
        except KeyError:
            return app(environ, start_response)
        unchanged = Response(status=304)
        unchanged.vary.add("Accept-Encoding")
        unchanged.set_etag(f"{edition}-{after}", weak=True)
        etag, _ = unchanged.get_etag()
        if request.if_none_match.contains_weak(etag or ""):
            return unchanged(environ, start_response)
        response = Response.from_app(app, environ)
        if response.status_code == 200:
            response.headers["ETag"] = unchanged.headers["ETag"]
        return response(environ, start_response)

    return respond
