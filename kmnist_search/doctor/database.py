"""The check of the database: reachable, how fast it answers, and whether this user may write."""

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import URL, Engine

from kmnist_search.database.errors import DATABASE_ERRORS, reason_of
from kmnist_search.database.url import check_url, to_type
from kmnist_search.doctor.finding import Finding
from kmnist_search.errors import StorageError

CONNECT_TIMEOUT_SECONDS = 10
#: Questions to measure the time of an answer by; the middle one counts.
QUESTIONS = 20
#: A trial makes a few dozen questions; slower answers are noticed with many workers.
SLOW_SECONDS = 0.1


def database(url: str) -> Iterator[Finding]:
    """Check the database at a URL. Nothing is changed in it, and no SQLite file is made."""
    try:
        parsed = check_url(url)
    except StorageError as error:
        yield Finding(name="database", state="bad", text=str(error), advice="Write another URL with --storage.")
        return
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
        yield _not_there_yet(parsed)
        return
    try:
        yield _answers(parsed)
    except DATABASE_ERRORS as error:
        yield Finding(
            name="database",
            state="bad",
            text=f"{to_type(parsed)} cannot be used: {reason_of(error)}",
            advice="Is the server running, can this machine reach it, are user, password and rights correct?",
        )


def _not_there_yet(url: URL) -> Finding:
    folder = Path(url.database or "").resolve().parent
    if folder.is_dir() and os.access(folder, os.W_OK):
        return Finding(name="database", state="absent", text=f"{to_type(url)} is made by the first run")
    advice = f"Make the folder {folder}, or choose one that you may write."
    return Finding(name="database", state="bad", text=f"{to_type(url)} cannot be made", advice=advice)


def _answers(url: URL) -> Finding:
    options = {} if url.get_backend_name() == "sqlite" else {"connect_timeout": CONNECT_TIMEOUT_SECONDS}
    engine = create_engine(url, connect_args=options)
    try:
        seconds = _seconds_of_an_answer(engine)
        _try_to_write(engine)
    finally:
        engine.dispose()
    is_slow = seconds > SLOW_SECONDS
    return Finding(
        name="database",
        state="bad" if is_slow else "ok",
        text=f"{to_type(url)} answers in {1000 * seconds:.2g} ms, and can be written",
        advice="Use a server that is nearer to this machine." if is_slow else "",
    )


def _seconds_of_an_answer(engine: Engine) -> float:
    times = []
    with engine.connect() as connection:
        for _ in range(QUESTIONS):
            begun = time.perf_counter()
            connection.execute(text("SELECT 1"))
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _try_to_write(engine: Engine) -> None:
    """Change no row of the trials, which takes the right to; without studies make a table, and take it back."""
    change = "CREATE TABLE kmnist_search_doctor (number INTEGER)"
    if inspect(engine).has_table("trials"):
        change = "UPDATE trials SET number = number WHERE 1 = 0"
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":  # Python's driver would begin no transaction before a CREATE
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        connection.execute(text(change))
        connection.rollback()
