"""Answers of this server's own: a status and a sentence, in the form that whoever asks understands. Knows no reason."""

import html
import json
from typing import Any

from werkzeug import Request, Response

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="UTF-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 15vh auto; padding: 0 1rem; }}
body {{ color-scheme: light dark; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{sentence}</p>
<p>{more}</p>
</body>
</html>
"""


def answer(
    request: Request,
    status: int,
    sentence: str,
    *,
    title: str = "Kmnist-search dashboard",
    retry_after: int | None = None,
) -> Response:
    """Return a sentence as JSON with a `reason`, as a page, or as plain text.

    Args:
        request: what was asked; its path tells who asks.
        status: of HTTP.
        sentence: what a person shall read.
        title: of the page.
        retry_after: in so many seconds it is worth to ask again; a page does so by itself.
    """
    headers: dict[str, Any] = {} if retry_after is None else {"Retry-After": retry_after}
    if request.path.startswith("/api/"):
        return Response(json.dumps({"reason": sentence}), status, headers, mimetype="application/json")
    if request.path not in ("", "/") and not request.path.startswith("/dashboard"):
        return Response(f"{sentence}\n", status, headers, mimetype="text/plain")
    more = ""
    if retry_after is not None:
        headers["Refresh"] = retry_after
        more = f"This page tries again every {retry_after} seconds."
    page = PAGE.format(title=html.escape(title), sentence=html.escape(sentence), more=more)
    return Response(page, status, headers, mimetype="text/html")
