"""The errors of a database: their reason as one line, and whether it is worth trying again."""

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFreeError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from kmnist_search.database import tables

#: For processes that open the database at the same moment; beyond that something is wrong.
OPENING_SECONDS = 30
#: What a database in trouble raises, by way of optuna or directly.
DATABASE_ERRORS = (SQLAlchemyError, StorageInternalError)

#: SQLite's primary result codes that may be gone when asked again: busy, locked, out of memory, I/O error, full,
#: cannot open, locking protocol.
PASSING_SQLITE_CODES = {5, 6, 7, 10, 13, 14, 15}
#: Classes of Postgres' error codes that may be gone when asked again: connection exception, transaction rollback
#: (deadlock), insufficient resources (connections, disk), operator intervention (shutdown, starting up), system error;
#: and a lock that was not available.
PASSING_SQLSTATES = ("08", "40", "53", "57", "58", "55P03")
#: What a server says with FATAL that will be ready later.
NOT_READY_WORDS = (
    "starting up",
    "shutting down",
    "in recovery",
    "not yet accepting",
    "too many",
    "remaining connection",
)
UNIQUE_VIOLATION = "23505"
#: Of Postgres: the role lacks a privilege; the server is a standby, or the role's transactions only read.
FORBIDDEN_SQLSTATES = ("42501", "25006")


def reason_of(error: BaseException) -> str:
    """Return what a database error says, on one line, without the SQL and its values."""
    error = _first(error)
    lines = str(getattr(error, "orig", None) or error).splitlines()
    # Where a connection is refused, Postgres adds a line that asks whether the server is running; where it breaks, one
    # that guesses that the server ended, which a network that is gone does as well.
    said = " ".join(line for line in lines if not line.endswith("?")).partition("This probably means")[0]
    return " ".join(said.split()).removesuffix(".")


def is_passing(error: BaseException) -> bool:
    """Return whether the database may well answer when it is asked again: it is away, busy, full, or in a deadlock."""
    error = _first(error)
    if not isinstance(error, DBAPIError):
        return isinstance(error, NoConnectionFreeError)
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in PASSING_SQLITE_CODES
    state = getattr(error.orig, "sqlstate", None)
    if state == UNIQUE_VIOLATION and tables.leases.name in str(error.orig):
        return True  # a claim whose first try was still being committed: asked again, it finds that
    if state is None:  # nothing came back from the server, or not even a connection
        return error.connection_invalidated or isinstance(error, OperationalError)
    return str(state).startswith(PASSING_SQLSTATES)


def is_forbidden(error: BaseException) -> bool:
    """Return whether the user may not make the change that was asked for."""
    error = _first(error)
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in FORBIDDEN_SQLSTATES


def is_away(error: BaseException) -> bool:
    """Return whether a database that was to be opened could not be reached, or is not ready yet.

    A server that refuses a connection for good, because of the password, say, begins its answer with FATAL.
    """
    said = reason_of(error)
    refused = "FATAL" in said and not any(words in said for words in NOT_READY_WORDS)
    return is_passing(error) and not refused


def is_race(error: BaseException) -> bool:
    """Return whether opening failed because others do the same at this moment."""
    return isinstance(error, DATABASE_ERRORS) and any(
        word in reason_of(error)
        for word in ("already exists", "locked", "UNIQUE", "duplicate key", "too many clients", "starting up")
    )


def when_it_answers(seconds: float = OPENING_SECONDS) -> Retrying:
    """Return what tries again, for so long, what a database in passing trouble refused."""
    return Retrying(
        retry=retry_if_exception(is_passing),
        stop=stop_after_delay(seconds),
        wait=wait_random(0.1, 1.0),
        reraise=True,
    )


def _first(error: BaseException) -> BaseException:
    """Return the error that optuna has wrapped in its own, if it has."""
    return error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
