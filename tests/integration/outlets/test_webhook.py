"""Messages to a webhook, which is a real HTTP server here: what is sent, and what happens when it cannot be reached."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import Result

from kmnist_search.errors import TrialsKeepFailingError
from kmnist_search.host.signals import StopSignals
from kmnist_search.outlets.webhook import notified
from kmnist_search.run.options import RunOptions
from kmnist_search.run.submission import prepare
from kmnist_search.study_file.parser import load
from kmnist_search.worker.events import DatabaseAway, DatabaseBack, Event, RunWarning, TrialEnded, TrialStarted

Invoke = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("one_thread")


class Receiver:
    """A webhook that keeps what it gets, and answers with `status`."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.headers["Content-Type"] == "application/json"
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert list(body) == ["text"]
                receiver.texts.append(body["text"])
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Write nothing: the base class writes to the screen."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/s3cret"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def told(tiny_study: Path, storage_url: str, tmp_path: Path) -> Callable[..., list[Event]]:
    """Let events of a run pass, and return what comes out."""
    search = prepare(load(tiny_study), RunOptions(storage_url=storage_url, trials=3, data_dir=tmp_path, device="cpu"))
    worker, _ = search.work(StopSignals())

    def told(events: Iterator[Event], url: str) -> list[Event]:
        return list(notified(events, search, lambda: search.seen_by(worker), url))

    return told


def _ended(number: int, outcome: str, reason: str = "") -> TrialEnded:
    figures = {"value": 0.5, "epochs": 1, "seconds": 1.0}
    return TrialEnded(number=number, params={}, outcome=outcome, reason=reason, **figures)  # type: ignore[arg-type]


def test_a_search_tells_each_new_best_and_its_end(invoke: Invoke, receiver: Receiver) -> None:
    ran = invoke("run", "tiny.toml", "--trials", "4", "--workers", "1", "--notify", receiver.url)
    assert ran.exit_code == 0, ran.output
    assert "s3cret" not in ran.output
    *bests, last = receiver.texts
    assert bests
    assert all(text.startswith("tiny: new best: val_accuracy ") for text in bests)
    assert bests[-1].removeprefix("tiny: new best: ") in ran.output
    assert last == f"tiny: done: 4 of 4 trials are finished; best: {bests[-1].removeprefix('tiny: new best: ')}"


def test_failures_and_a_database_that_is_away_are_told_and_what_is_usual_is_not(
    told: Callable[..., list[Event]], receiver: Receiver
) -> None:
    events: list[Event] = [
        TrialStarted(number=0, params={}, epochs_done=0),
        _ended(0, "failed", "out of memory"),
        DatabaseAway(reason="Connection refused"),
        DatabaseBack(seconds=3.0),
        _ended(1, "pruned"),
    ]
    assert told(iter(events), receiver.url) == events
    assert receiver.texts == [
        "tiny: trial 0 failed: out of memory",
        "tiny: the database is away, trying again: Connection refused",
        "tiny: the database is back after 3 s",
        "tiny: the work has ended here: 0 of 3 trials are finished; best: no trial is complete yet",
    ]


def test_an_error_that_ends_the_work_is_told_and_raised(told: Callable[..., list[Event]], receiver: Receiver) -> None:
    def events() -> Iterator[Event]:
        yield TrialStarted(number=0, params={}, epochs_done=0)
        raise TrialsKeepFailingError("5 trials in a row failed")

    with pytest.raises(TrialsKeepFailingError):
        told(events(), receiver.url)
    assert receiver.texts == ["tiny: the work ended with an error: 5 trials in a row failed"]


def test_a_webhook_that_refuses_or_is_gone_is_told_once_and_the_work_goes_on(
    told: Callable[..., list[Event]], receiver: Receiver
) -> None:
    receiver.status = 404
    failures = [_ended(number, "failed", "no memory") for number in range(3)]
    warning = RunWarning(text="a message to 127.0.0.1 could not be sent, the work continues: 404 Not Found")
    events = told(iter(failures), receiver.url)
    assert events.count(warning) == 1
    assert [event for event in events if event != warning] == failures
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/s3cret"
    warnings = [event for event in told(iter(failures), url) if isinstance(event, RunWarning)]
    assert [warning.text.partition(": ")[0] for warning in warnings] == [
        "a message to 127.0.0.1 could not be sent, the work continues"
    ]
    assert "s3cret" not in warnings[0].text


@pytest.mark.parametrize("url", ["hooks.slack.com/services/T", "ftp://host/x", "https:///x", "https://host/a b"])
def test_what_is_no_url_of_a_webhook_is_refused_before_any_work(invoke: Invoke, tmp_path: Path, url: str) -> None:
    refused = invoke("run", "tiny.toml", "--notify", url)
    assert refused.exit_code == 2
    assert "--notify takes the URL of a webhook" in refused.output
    assert not (tmp_path / "kmnist-search.db").exists()


def test_the_command_that_resumes_does_not_show_the_secret_part_of_the_url(
    invoke: Invoke, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["run", "tiny.toml", "--timeout", "1s", "--epochs", "5000", "--workers", "1", "--notify", receiver.url]
    monkeypatch.setattr("sys.argv", ["kmnist-search", *arguments])
    ran = invoke(*arguments)
    assert "--workers 1 --notify URL\n" in ran.output
    assert "s3cret" not in ran.output
