"""The connections to a database: their settings for SQLite and for Postgres.

With Optuna's settings for SQLite, several processes disturb each other: they read, then write, and find the database
locked or a trial taken. So here every transaction that may write begins with BEGIN IMMEDIATE and waits for its turn,
and the write-ahead log makes commits cheap. On Postgres, an idle connection is checked before use, dead connections are
detected, and no session state outlives a transaction, so that PgBouncer may share connections.
"""

import sqlite3
from typing import Any

import psycopg
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine

BUSY_TIMEOUT_SECONDS = 60.0
#: The longest wait for a lock; the statement is then retried later, so that a lease can be renewed in between.
LOCK_TIMEOUT_SECONDS = 20
CONNECT_TIMEOUT_SECONDS = 10

#: The execution option of read-only transactions.
READING = "kmnist_search_reading"


def connection_settings(url: URL) -> dict[str, Any]:
    """Return the engine settings for a database."""
    if url.get_backend_name() == "sqlite":
        return {"pool_size": 1, "max_overflow": 1, "connect_args": {"timeout": BUSY_TIMEOUT_SECONDS}}
    return {
        "pool_size": 1,
        "max_overflow": 1,
        "pool_pre_ping": True,
        "pool_recycle": 300,
        "use_native_hstore": False,  # would cost a query at each first connection
        "connect_args": {
            "application_name": "kmnist-search",
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            # A server that disappears is detected within half a minute.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
            "prepare_threshold": None,  # prepared statements would clash on server connections that PgBouncer shares
        },
    }


def set_up_connections(engine: Engine) -> set[psycopg.Connection[Any]]:
    """Set up the engine's connections; return the set that holds those to Postgres while they are open."""
    connections: set[psycopg.Connection[Any]] = set()
    if engine.dialect.name == "sqlite":
        # Not earlier: while Optuna makes its tables, it reads in one connection and writes in another.
        event.listen(engine, "connect", _on_sqlite_connect)
        event.listen(engine, "begin", _on_sqlite_begin)
    else:
        event.listen(engine, "begin", _on_postgres_begin)
        event.listen(engine, "connect", lambda connection, _record: connections.add(connection))
        event.listen(engine, "close", lambda connection, _record: connections.discard(connection))
        event.listen(engine, "close_detached", connections.discard)
    engine.dispose()
    return connections


def _on_sqlite_connect(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins no transaction by itself: _on_sqlite_begin does
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _on_sqlite_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN" if _is_reading(connection) else "BEGIN IMMEDIATE")


def _on_postgres_begin(connection: Connection) -> None:
    if not _is_reading(connection):  # a reader waits for no row lock
        # Only for this transaction: PgBouncer may give the next one another server connection, and this one to another
        # client.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'")


def _is_reading(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get(READING, False))
