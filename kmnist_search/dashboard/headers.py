"""What every answer tells the browser to forbid. Knows nothing of what is answered."""

from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.datastructures import Headers

#: Of the page. Its parallel coordinates compile their WebGL drawing by `eval`; all styles are made by its script.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; frame-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
#: Of files that somebody has put beside a trial. Opened by themselves they run nothing and reach nothing of the page.
ARTIFACT_POLICY = (
    "default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
    "sandbox"
)
OTHER_POLICY = "default-src 'none'; frame-ancestors 'none'"

FIXED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def with_headers(app: WSGIApplication) -> WSGIApplication:
    """Return the application with strict headers."""

    def asked(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, given: list[tuple[str, str]], exc_info: Any = None) -> Any:
            headers = Headers(given)
            _make_strict(headers, environ.get("PATH_INFO", ""), is_fine=status.startswith(("2", "3")))
            return start_response(status, headers.to_wsgi_list(), exc_info)

        return app(environ, start)

    return asked


def _make_strict(headers: Headers, path: str, *, is_fine: bool) -> None:
    for name, value in FIXED.items():
        headers[name] = value
    headers["Content-Security-Policy"] = _policy(path)
    # What is kept is asked for again each time, and answered with 304 if nothing changed.
    headers["Cache-Control"] = "private, no-cache" if is_fine else "no-store"
    headers.remove("Access-Control-Allow-Origin")  # optuna-dashboard lets every web page read artifacts


def _policy(path: str) -> str:
    if path.startswith("/artifacts/"):
        return ARTIFACT_POLICY
    return PAGE_POLICY if path in ("", "/") or path.startswith("/dashboard") else OTHER_POLICY
