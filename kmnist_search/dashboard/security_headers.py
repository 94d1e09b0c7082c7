"""Security headers of every response: content security policy, framing, caching."""

from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from werkzeug.datastructures import Headers

#: For the page. Its parallel coordinates compile WebGL code with `eval`, and its script makes all styles.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; frame-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
#: For artifacts, which anybody may have uploaded. Opened on their own they run no script and cannot reach the page.
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


def with_security_headers(app: WSGIApplication) -> WSGIApplication:
    """Return the application with these headers in each response."""

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, given: list[tuple[str, str]], exc_info: Any = None) -> Any:
            headers = Headers(given)
            _set_headers(headers, environ.get("PATH_INFO", ""), is_fine=status.startswith(("2", "3")))
            return start_response(status, headers.to_wsgi_list(), exc_info)

        return app(environ, start)

    return respond


def _set_headers(headers: Headers, path: str, *, is_fine: bool) -> None:
    for name, value in FIXED.items():
        headers[name] = value
    headers["Content-Security-Policy"] = _policy(path)
    # Browsers ask again each time, and get 304 if nothing changed.
    headers["Cache-Control"] = "private, no-cache" if is_fine else "no-store"
    headers.remove("Access-Control-Allow-Origin")  # optuna-dashboard allows every web page to read artifacts


def _policy(path: str) -> str:
    if path.startswith("/artifacts/"):
        return ARTIFACT_POLICY
    return PAGE_POLICY if path in ("", "/") or path.startswith("/dashboard") else OTHER_POLICY
