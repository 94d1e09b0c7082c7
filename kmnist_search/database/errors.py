"""Database errors: their reason on one line, and whether a retry may help."""

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError, TimeoutError as NoConnectionFreeError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from kmnist_search.database import tables

#: Enough for processes that open the database at the same moment; a longer wait means that something is wrong.
OPENING_SECONDS = 30
#: What SQLAlchemy and Optuna raise when a database fails.
DATABASE_ERRORS = (SQLAlchemyError, StorageInternalError)

#: SQLite's primary result codes that may pass: busy, locked, out of memory, I/O error, full, cannot open, locking
#: protocol.
PASSING_SQLITE_CODES = {5, 6, 7, 10, 13, 14, 15}
#: Classes of Postgres error codes that may pass: connection exception, transaction rollback (deadlock), insufficient
#: resources (connections, disk), operator intervention (shutdown, starting up), system error; and lock not available.
PASSING_SQLSTATES = ("08", "40", "53", "57", "58", "55P03")
#: FATAL messages of a server that will be ready later.
NOT_READY_WORDS = (
    "starting up",
    "shutting down",
    "in recovery",
    "not yet accepting",
    "too many",
    "remaining connection",
)
UNIQUE_VIOLATION = "23505"
#: Postgres: the role lacks a privilege; the server is a standby, or the role is read-only.
FORBIDDEN_SQLSTATES = ("42501", "25006")


def reason_of(error: BaseException) -> str:
    """Return the message of a database error on one line, without the SQL and its values."""
    error = _first(error)
    lines = str(getattr(error, "orig", None) or error).splitlines()
    # When a connection is refused, Postgres adds a line that asks whether the server is running. When a connection
    # breaks, it adds a guess that the server ended, but the network may be the cause.
    said = " ".join(line for line in lines if not line.endswith("?")).partition("This probably means")[0]
    return " ".join(said.split()).removesuffix(".")


def is_passing(error: BaseException) -> bool:
    """Return whether a retry may help: the database is away, busy, full, or in a deadlock."""
    error = _first(error)
    if not isinstance(error, DBAPIError):
        return isinstance(error, NoConnectionFreeError)
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in PASSING_SQLITE_CODES
    state = getattr(error.orig, "sqlstate", None)
    if state == UNIQUE_VIOLATION and tables.leases.name in str(error.orig):
        return True  # a claim whose first try was still being committed; the retry finds it
    if state is None:  # the server did not answer, or there was no connection
        return error.connection_invalidated or isinstance(error, OperationalError)
    return str(state).startswith(PASSING_SQLSTATES)


def is_forbidden(error: BaseException) -> bool:
    """Return whether the user lacks permission for the change."""
    error = _first(error)
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in FORBIDDEN_SQLSTATES


def is_away(error: BaseException) -> bool:
    """Return whether a database could not be opened because it is unreachable or not ready yet.

    A server that refuses for good, for example because of the password, begins its answer with FATAL.
    """
    said = reason_of(error)
    refused = "FATAL" in said and not any(words in said for words in NOT_READY_WORDS)
    return is_passing(error) and not refused


def is_race(error: BaseException) -> bool:
    """Return whether opening failed because other processes open the database at the same moment."""
    return isinstance(error, DATABASE_ERRORS) and any(
        word in reason_of(error)
        for word in ("already exists", "locked", "UNIQUE", "duplicate key", "too many clients", "starting up")
    )


def when_it_answers(seconds: float = OPENING_SECONDS) -> Retrying:
    """Return a retrier that repeats passing database errors for so many seconds."""
    return Retrying(
        retry=retry_if_exception(is_passing),
        stop=stop_after_delay(seconds),
        wait=wait_random(0.1, 1.0),
        reraise=True,
    )


def _first(error: BaseException) -> BaseException:
    """Return the original error if Optuna has wrapped it."""
    return error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
