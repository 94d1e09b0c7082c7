"""Tests of dashboard/request_checks.py, security_headers.py, compression.py, error_pages.py."""

import gzip
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from werkzeug import Request, Response
from werkzeug.test import Client

from kmnist_search.dashboard.address import check_host, is_loopback
from kmnist_search.dashboard.compression import with_compression
from kmnist_search.dashboard.error_pages import without_tracebacks
from kmnist_search.dashboard.request_checks import RequestChecks
from kmnist_search.dashboard.security_headers import with_security_headers
from kmnist_search.errors import InputError

CHANGING = ("POST", "PUT", "DELETE", "PATCH", "MADE-UP")


@Request.application
def _behind(request: Request) -> Response:
    return Response("done")


def _status(*, method: str = "GET", private: bool = True, read_only: bool = False, **headers: str) -> int:
    client = Client(RequestChecks(_behind, is_private=private, is_read_only=read_only))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.open("/api/studies/1", method=method, headers={"Host": "127.0.0.1:8080", **named}).status_code


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", *CHANGING])
def test_a_read_only_dashboard_refuses_all_but_reading(method: str) -> None:
    assert _status(method=method, read_only=True) == (403 if method in CHANGING else 200)
    assert _status(method=method, read_only=False) == 200


def test_it_says_why_nothing_was_changed() -> None:
    client = Client(RequestChecks(_behind, is_private=False, is_read_only=True))
    refused = client.delete("/api/studies/1")
    assert refused.get_json() == {"reason": "This dashboard is read-only, so nothing was changed."}
    assert client.post("/incompatible-rdb-schema").get_data(as_text=True) == (
        "This dashboard is read-only, so nothing was changed.\n"
    )


@pytest.mark.parametrize("method", CHANGING)
@pytest.mark.parametrize("site", ["cross-site", "same-site", "something-new"])
def test_a_change_that_another_page_asks_for_is_refused(method: str, site: str) -> None:
    assert _status(method=method, Sec_Fetch_Site=site) == 403
    assert _status(method=method, Sec_Fetch_Site=site, Origin="http://127.0.0.1:8080") == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:9090", "http://localhost:8080", "null", "", "http://["]
)
def test_a_change_from_another_origin_is_refused_where_the_browser_tells_no_more(origin: str) -> None:
    assert _status(method="DELETE", Origin=origin) == 403


def test_a_change_by_the_page_itself_or_by_no_browser_is_made() -> None:
    assert _status(method="DELETE", Origin="http://127.0.0.1:8080") == 200
    assert _status(method="DELETE", Origin="http://127.0.0.1:8080", Sec_Fetch_Site="same-origin") == 200
    assert _status(method="DELETE") == 200
    # A proxy that speaks HTTPS has another name than this server sees; browsers then say who asks.
    assert _status(method="DELETE", Origin="https://me.example", Sec_Fetch_Site="same-origin") == 200


def test_links_from_other_pages_work() -> None:
    assert _status(Sec_Fetch_Site="cross-site") == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "192.0.2.1", "", "[", "127.0.0.1.evil.example"],
)
def test_on_this_machine_alone_no_foreign_name_is_answered(host: str) -> None:
    assert _status(Host=host) == 403
    if host != "[":  # with which nothing else can be asked either
        assert _status(Host=host, private=False) == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:9090", "LOCALHOST", "[::1]:8080", "127.1.2.3"])
def test_on_this_machine_alone_its_own_names_are_answered(host: str) -> None:
    assert _status(Host=host) == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "fe80::1"])
def test_an_address_for_others_wants_a_password_or_to_be_known_as_open(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(InputError, match=r"without --password-file FILE .* --i-know-it-is-open"):
        check_host(host, is_open=False, has_login=False)
    check_host(host, is_open=True, has_login=False)
    check_host(host, is_open=False, has_login=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_an_address_of_this_machine_alone_wants_nothing(host: str) -> None:
    check_host(host, is_open=False, has_login=False)


@pytest.mark.parametrize("path", ["/", "/dashboard", "/dashboard/studies/1", "/api/studies", "/artifacts/1/a", "/x"])
def test_every_answer_has_strict_headers(path: str) -> None:
    headers = Client(with_security_headers(_behind)).get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "private, no-cache"
    policy = headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert ("script-src" in policy) == (path == "/" or path.startswith("/dashboard"))
    assert policy.endswith("sandbox") == path.startswith("/artifacts/")


def test_what_was_said_before_is_replaced() -> None:
    @Request.application
    def open_to_all(request: Request) -> Response:
        return Response("x", headers={"Access-Control-Allow-Origin": "*", "Content-Security-Policy": "default-src *"})

    headers = Client(with_security_headers(open_to_all)).get("/artifacts/1/a").headers
    assert "Access-Control-Allow-Origin" not in headers
    assert headers.getlist("Content-Security-Policy") == [headers["Content-Security-Policy"]]
    assert "*" not in headers["Content-Security-Policy"]


def test_a_refusal_is_not_kept() -> None:
    @Request.application
    def refuses(request: Request) -> Response:
        return Response("no", 401)

    assert Client(with_security_headers(refuses)).get("/").headers["Cache-Control"] == "no-store"


def _sends(text: str, mimetype: str = "application/json", **headers: str) -> Client:
    return Client(with_compression(Response(text, mimetype=mimetype, headers=headers)))


def test_long_texts_are_compressed_for_who_takes_that() -> None:
    client, text = _sends("abc " * 10_000), b"abc " * 10_000
    small = client.get("/", headers={"Accept-Encoding": "br, gzip"})
    assert small.headers["Content-Encoding"] == "gzip"
    assert small.headers["Vary"] == "Accept-Encoding"
    assert len(small.data) < 1000
    assert gzip.decompress(small.data) == text
    for accepted in ("", "identity", "gzip;q=0", "br"):
        plain = client.get("/", headers={"Accept-Encoding": accepted})
        assert plain.data == text
        assert "Content-Encoding" not in plain.headers
        assert plain.headers["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    "client",
    [
        _sends("short"),
        _sends("x" * 5000, "image/png"),
        _sends("x" * 5000, "application/javascript", **{"Content-Encoding": "br"}),
    ],
)
def test_what_gains_nothing_is_sent_as_it_is(client: Client) -> None:
    sent = client.get("/", headers={"Accept-Encoding": "gzip"})
    assert sent.headers.get("Content-Encoding") != "gzip"
    assert int(sent.headers["Content-Length"]) == len(sent.data)


def test_pieces_are_compressed_as_they_come() -> None:
    asked = []

    def pieces() -> Iterable[bytes]:
        for number in range(100):
            asked.append(number)
            yield bytes([number]) * 100_000

    client = Client(with_compression(lambda environ, start: Response(pieces(), mimetype="text/csv")(environ, start)))
    response = client.get("/", headers={"Accept-Encoding": "gzip"}, buffered=False)
    assert next(iter(response.response))
    assert len(asked) < 100
    response.close()


def test_a_fault_is_logged_with_its_traceback_and_answered_without(caplog: pytest.LogCaptureFixture) -> None:
    def fails(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        raise RuntimeError("a secret of the server")

    for path in ("/api/studies", "/dashboard", "/csv/1"):
        answer = Client(without_tracebacks(fails)).get(path)
        assert answer.status_code == 500
        assert "The dashboard failed to answer this request." in answer.get_data(as_text=True)
        assert b"secret" not in answer.data
        assert b"Traceback" not in answer.data
    assert caplog.messages == ["GET /api/studies failed:", "GET /dashboard failed:", "GET /csv/1 failed:"]
    assert "a secret of the server" in caplog.text
