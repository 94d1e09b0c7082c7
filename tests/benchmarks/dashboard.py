"""Benchmark of the dashboard: bytes, seconds and memory at 5,000 trials, and the cost of ten polling browsers.

    python tests/benchmarks/dashboard.py size [--trials 5000]     ours and plain optuna-dashboard, SQLite and Postgres
    python tests/benchmarks/dashboard.py polls [--seconds 60]     a search with and without ten browsers, alternating
    python tests/benchmarks/dashboard.py page [--trials 5000]     what a browser (Chromium) needs to draw its pages

Each trial has six hyperparameters and 20 reports. Both dashboards are served by waitress in a process of their own. On
a busy machine only the CPU seconds and the ratios mean something.
"""

import argparse
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))

from kmnist_search.errors import DatabaseAwayError
from tests.benchmarks.studies import Desk, fill_up, place
from tests.support.postgres import free_port

BROWSERS = 10
#: What the page waits between two polls, if nobody changes that.
POLL_SECONDS = 10.0
#: A process that runs trials without training: it reports so often, as trainings with epochs of that length do.
EPOCH_SECONDS = 0.05

OURS = """
import sys
from kmnist_search.dashboard.database import Database
from kmnist_search.dashboard.server import Access, server
server(Database(sys.argv[1]), Access(host="127.0.0.1"), int(sys.argv[2])).run()
"""
PLAIN = """
import sys
import optuna_dashboard, waitress
from kmnist_search.database.storage import open_storage
app = optuna_dashboard.wsgi(open_storage(sys.argv[1], create=False).rdb)
waitress.serve(app, host="127.0.0.1", port=int(sys.argv[2]))
"""

#: The code of each by its name.
Servers = dict[str, str]


class Server:
    """A server in a process of its own."""

    def __init__(self, code: str, url: str) -> None:
        self.port = free_port()
        self.process = psutil.Popen([sys.executable, "-c", code, url, str(self.port)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.ask("/static/bundle.js")
                return
            except OSError:
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.1)

    def ask(self, path: str, etag: str | None = None) -> tuple[int, int, str | None]:
        """Return the status, the bytes that were sent, and the ETag."""
        headers = {"Accept-Encoding": "gzip", **({"If-None-Match": etag} if etag else {})}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, len(answer.read()), answer.headers["ETag"]
        except urllib.error.HTTPError as error:
            return error.code, 0, etag

    def cpu_seconds(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def measured(self, what: str, path: str, etag: str | None = None) -> str | None:
        before, started = self.cpu_seconds(), time.perf_counter()
        status, size, found = self.ask(path, etag)
        seconds, cpu = time.perf_counter() - started, self.cpu_seconds() - before
        memory = self.process.memory_info().rss / 1e6
        print(f"    {what:28} {status} {size / 1e6:8.3f} MB {seconds:7.2f} s {cpu:7.2f} CPU s   {memory:4.0f} MB RSS")
        return found

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def size(trials: int, servers: Servers) -> None:
    with place() as (kinds, _):
        for kind, new_url in kinds.items():
            url = new_url()
            desk = Desk(url)
            fill_up(url, desk.study.queue.study_id, trials)
            for name, code in servers.items():
                print(f"{trials} trials, {kind}, {name}")
                server = Server(code, url)
                server.measured("list", "/api/studies")
                etag = server.measured("study, the first time", "/api/studies/1?after=0")
                server.measured("study, at once again", "/api/studies/1?after=0")
                time.sleep(11)  # beyond what either keeps
                server.measured("study, later", "/api/studies/1?after=0")
                server.measured("poll, nothing changed", "/api/studies/1?after=0", etag)
                server.measured("importance, the first time", "/api/studies/1/param_importances")
                desk.study.optuna.add_trial(desk.study.optuna.trials[0])
                time.sleep(11)
                server.measured("study, one trial more", "/api/studies/1?after=0")
                server.measured("poll, one trial more", f"/api/studies/1?after={trials}")
                server.measured("importance again", "/api/studies/1/param_importances")
                server.stop()
            desk.study.storage.disconnect()


def _search(url: str, counter: Any, ending: Any) -> None:
    """Run trials that compute instead of train, on one core, until stopped."""
    desk = Desk(url)
    try:
        with desk.database_thread:
            desk.database_thread.refresh().result()
            while not ending.is_set():
                _run_a_trial(desk, counter)
    except DatabaseAwayError:
        os._exit(1)  # which is told in a sentence
    os._exit(0)


def _run_a_trial(desk: Desk, counter: Any) -> None:
    asked = desk.ask(10**9)
    assert asked is not None
    claim, trial = asked
    for epoch in range(1, 21):
        until = time.perf_counter() + EPOCH_SECONDS
        while time.perf_counter() < until:
            counter.value += _work()
        trial.report(epoch / 100, epoch)
    trial.study.tell(trial, 0.5)
    assert desk.database_thread.finish(claim, epochs=20).result()


def _work() -> int:
    """Return the result of about 0.1 ms of work."""
    sum(number * number for number in range(1000))
    return 1


def polls(trials: int, seconds: float, servers: Servers) -> None:
    with place() as (kinds, _):
        for kind, new_url in kinds.items():
            url = new_url()
            desk = Desk(url)
            fill_up(url, desk.study.queue.study_id, trials)
            desk.study.fill(trials + 5000)
            desk.study.storage.disconnect()
            for name, code in servers.items():
                _compare(f"{kind}, {name}", url, Server(code, url), seconds)


def _compare(what: str, url: str, server: Server, seconds: float) -> None:
    context = multiprocessing.get_context("fork")
    counter, ending = context.Value("q", 0, lock=False), context.Event()
    worker = context.Process(target=_search, args=(url, counter, ending))
    worker.start()
    process = psutil.Process(worker.pid)
    rates: dict[bool, list[float]] = {True: [], False: []}
    worked: dict[bool, list[float]] = {True: [], False: []}
    server_cpu = 0.0
    time.sleep(15)
    for turn in range(6):
        if not worker.is_alive():
            break
        polled = turn % 2 == 1
        with _browsers(server) if polled else _nobody():
            time.sleep(5)
            if not worker.is_alive():
                break
            done, cpu, server_before = counter.value, sum(process.cpu_times()[:2]), server.cpu_seconds()
            started = time.perf_counter()
            time.sleep(seconds / 3)
            lasted = time.perf_counter() - started
            if not worker.is_alive():
                break
            used = sum(process.cpu_times()[:2]) - cpu
            rates[polled].append((counter.value - done) / lasted)
            worked[polled].append((counter.value - done) / used)
            server_cpu += server.cpu_seconds() - server_before if polled else 0.0
    gave_up = not worker.is_alive()
    ending.set()
    worker.join()
    server.stop()
    if gave_up:
        print(
            f"{what:16} with ten browsers: the search gave up, it could not reach its database for a minute", flush=True
        )
        return
    by_time, by_cpu = (statistics.mean(each[True]) / statistics.mean(each[False]) for each in (rates, worked))
    spread = max(rates[False]) / min(rates[False]) - 1
    print(
        f"{what:16} with ten browsers: work a second {by_time:6.1%} of that without (which differs by {spread:.1%} by "
        f"itself), work a CPU second {by_cpu:6.1%}; the server takes {server_cpu / seconds:.1%} of a core",
        flush=True,
    )


@contextmanager
def _nobody() -> Iterator[None]:
    yield


@contextmanager
def _browsers(server: Server) -> Iterator[None]:
    """Ten pages that began at different times and poll as optuna-dashboard's does."""
    ending = threading.Event()

    def browse(index: int) -> None:
        ending.wait(index * POLL_SECONDS / BROWSERS)
        etags: dict[str, str | None] = {}
        after = 5000
        while not ending.is_set():
            path = f"/api/studies/1?after={after}"
            _, _, etags[path] = server.ask(path, etags.get(path))
            server.ask("/api/studies/1/param_importances")
            ending.wait(POLL_SECONDS)

    threads = [threading.Thread(target=browse, args=(index,)) for index in range(BROWSERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def page(trials: int) -> None:
    from playwright.sync_api import sync_playwright

    with place() as (kinds, _), sync_playwright() as playwright:
        url = kinds["sqlite"]()
        desk = Desk(url)
        fill_up(url, desk.study.queue.study_id, trials)
        desk.study.storage.disconnect()
        server = Server(OURS, url)
        server.ask("/api/studies/1?after=0")
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"), args=["--no-sandbox"]
        )
        for path, drawn in (
            ("", ".js-plotly-plot .main-svg"),
            ("/analytics", ".js-plotly-plot .main-svg"),
            ("/trials", "text=Trial 0"),
        ):
            opened = browser.new_page()
            started = time.perf_counter()
            opened.goto(f"http://127.0.0.1:{server.port}/dashboard/studies/1{path}")
            opened.locator(drawn).first.wait_for(timeout=120_000)
            seconds = time.perf_counter() - started
            opened.evaluate("new Promise(done => setTimeout(done))")  # when the page answers again
            idle = time.perf_counter() - started
            print(f"{path or '/':12} first drawn after {seconds:5.1f} s, answers after {idle:5.1f} s", flush=True)
            opened.close()
        browser.close()
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["size", "polls", "page"])
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", choices=["ours", "plain"], help="One of the two servers.")
    chosen = parser.parse_args()
    servers = {name: code for name, code in (("ours", OURS), ("plain", PLAIN)) if chosen.only in (None, name)}
    versions = "  ".join(f"{name} {version(name)}" for name in ("optuna", "optuna-dashboard", "waitress", "werkzeug"))
    print(f"{' '.join(sys.argv)}\nPython {platform.python_version()}  {versions}  {os.cpu_count()} cores", flush=True)
    match chosen.what:
        case "size":
            size(chosen.trials, servers)
        case "polls":
            polls(chosen.trials, chosen.seconds, servers)
        case "page":
            page(chosen.trials)


if __name__ == "__main__":
    main()
