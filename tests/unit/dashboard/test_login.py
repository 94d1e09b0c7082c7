"""Tests of dashboard/login.py and rate_limit.py: who is let in, and how often one may guess."""

import base64
import logging
import re
import time
from collections.abc import Iterable
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from werkzeug.test import Client, TestResponse

from kmnist_search.dashboard import rate_limit
from kmnist_search.dashboard.login import COOKIE, Login, LoginRequired, read_password
from kmnist_search.dashboard.rate_limit import SECONDS_A_TRY, TRIES, LoginRateLimit
from kmnist_search.errors import InputError

PASSWORD = "pässwörd: with a colon"


def _behind(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"inside"]


@pytest.fixture
def client() -> Client:
    return Client(LoginRequired(_behind, Login(user="kmnist", password=PASSWORD)))


def _ask(
    client: Client, user: str, password: str, *, path: str = "/dashboard", address: str = "192.0.2.1"
) -> TestResponse:
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    return client.get(path, headers={"Authorization": f"Basic {credentials}"}, environ_base={"REMOTE_ADDR": address})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_who_says_nothing_is_asked_for_a_password(client: Client) -> None:
    refused = client.get("/dashboard")
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == 'Basic realm="kmnist-search dashboard", charset="UTF-8"'
    assert b"inside" not in refused.data


@pytest.mark.parametrize(
    "header", ["Basic", "Basic ", "Basic !!!", "Basic a21uaXN0", "Bearer x", "", "Digest username=kmnist"]
)
def test_a_header_that_is_no_login_is_no_login(client: Client, header: str) -> None:
    refused = client.get("/api/studies", headers={"Authorization": header})
    assert refused.status_code == 401
    assert list(refused.get_json()) == ["reason"]


@pytest.mark.parametrize(
    ("user", "password"),
    [("kmnist", "wrong"), ("other", PASSWORD), ("kmnist", ""), ("", PASSWORD), ("kmnist", PASSWORD + " "), ("é", "\0")],
)
def test_the_wrong_user_or_password_is_refused_and_told_to_whoever_runs_the_server(
    client: Client, caplog: pytest.LogCaptureFixture, user: str, password: str
) -> None:
    assert _ask(client, user, password).status_code == 401
    assert caplog.messages == ["A wrong user name or password came from 192.0.2.1."]


def test_the_right_password_lets_in(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert _ask(client, "kmnist", PASSWORD).data == b"inside"
    assert caplog.messages == []


def test_whether_it_answers_is_told_without_a_password_and_nothing_else_is(client: Client) -> None:
    assert client.get("/health").data == b"ok\n"
    for path in ("/", "/health/", "/healthy", "/static/bundle.js", "/api/meta", "/favicon.ico", "/csv/1"):
        assert client.get(path).status_code == 401, path


def test_an_address_that_guesses_has_to_wait_even_with_the_right_password(client: Client, clock: list[float]) -> None:
    for _ in range(TRIES):
        assert _ask(client, "kmnist", "guess").status_code == 401
    held_up = _ask(client, "kmnist", PASSWORD)
    assert held_up.status_code == 429
    assert held_up.headers["Retry-After"] == str(int(SECONDS_A_TRY))
    assert _ask(Client(client.application), "kmnist", PASSWORD, address="192.0.2.2").status_code == 200
    clock[0] += SECONDS_A_TRY
    assert _ask(client, "kmnist", "guess").status_code == 401
    assert _ask(client, "kmnist", "guess").status_code == 429
    clock[0] += SECONDS_A_TRY
    assert _ask(client, "kmnist", PASSWORD).status_code == 200


def test_a_browser_that_was_let_in_is_not_held_up_by_another_behind_the_same_proxy(client: Client) -> None:
    login_required = client.application
    assert _ask(client, "kmnist", PASSWORD).status_code == 200
    other = Client(login_required)
    statuses = [_ask(other, "kmnist", "guess").status_code for _ in range(TRIES + 5)]
    assert statuses == [401] * TRIES + [429] * 5
    assert _ask(client, "kmnist", PASSWORD).status_code == 200
    assert _ask(client, "kmnist", "wrong").status_code == 401  # having been in is not enough
    assert client.get("/dashboard").status_code == 401


def test_the_cookie_is_for_no_script_and_no_other_page(client: Client) -> None:
    cookie = _ask(client, "kmnist", PASSWORD).headers["Set-Cookie"]
    assert re.fullmatch(rf"{COOKIE}=[\w-]{{20,}}; HttpOnly; Path=/; SameSite=Strict", cookie)
    other = Client(client.application)
    other.set_cookie(COOKIE, "made-up")
    assert [_ask(other, "kmnist", "guess").status_code for _ in range(TRIES + 1)][-1] == 429


def test_right_passwords_take_no_try(clock: list[float]) -> None:
    failed = LoginRateLimit()
    for _ in range(100):
        assert failed.seconds_to_wait("192.0.2.1") == 0
        failed.give_back("192.0.2.1")


def test_a_network_of_ipv6_is_one_address(clock: list[float]) -> None:
    failed = LoginRateLimit()
    for number in range(TRIES):
        assert failed.seconds_to_wait(f"2001:db8::{number:x}") == 0
    assert failed.seconds_to_wait("2001:db8::ffff") == SECONDS_A_TRY
    assert failed.seconds_to_wait("2001:db8:0:1::1") == 0


def test_addresses_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    monkeypatch.setattr(rate_limit, "MAX_ADDRESSES", 3)
    failed = LoginRateLimit()
    for number in range(TRIES * 10):
        failed.seconds_to_wait(f"192.0.2.{number}")
    assert len(failed._used) == 3


def test_a_password_is_never_printed() -> None:
    assert PASSWORD not in repr(Login(user="kmnist", password=PASSWORD))


@pytest.mark.parametrize("user", ["", "a:b", "a\nb"])
def test_a_user_that_http_cannot_name_is_refused(user: str) -> None:
    with pytest.raises(InputError, match=r"--user .*Choose another"):
        Login(user=user, password="x")


def _file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    file = folder / "password"
    file.write_bytes(content)
    file.chmod(mode)
    return file


@pytest.mark.parametrize("content", ["secret", "secret\n", "secret\r\n"])
def test_the_file_holds_one_line(tmp_path: Path, content: str) -> None:
    assert read_password(_file(tmp_path, content.encode())) == "secret"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty. Write the password into it"),
        (b"\n", "is empty"),
        (b"  \n", "is empty"),
        (b"one\ntwo\n", "has several lines"),
        (b"one\n\n", "has several lines"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"x" * 2000, "has more than 1024 bytes"),
    ],
)
def test_any_other_file_is_refused_without_showing_it(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        read_password(_file(tmp_path, content))
    assert "one\n" not in str(error.value)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o622, 0o660, 0o601])
def test_a_file_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(InputError, match=rf"other users can read or change it \(mode {mode:o}\)\. .* chmod 600 "):
        read_password(_file(tmp_path, b"secret\n", mode))


def test_no_file_is_refused_with_the_way_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read: No such file or directory\. Make it with: "):
        read_password(tmp_path / "missing")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_password(tmp_path)
