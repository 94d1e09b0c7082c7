"""The URL of a database: checked, and shown without its password."""

import re

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from kmnist_search.errors import StorageError

#: The parts of a URL's query that may be shown.
SHOWN_QUERY = ("host", "port", "sslmode")
POSTGRES_EXAMPLE = "postgresql://user@host/database"


def check_url(url: str) -> URL:
    """Return the parsed URL; `postgresql://` becomes `postgresql+psycopg://`.

    Raises:
        StorageError: it is not a URL, or of an unsupported kind.
    """
    example = f"sqlite:///{url}" if re.fullmatch(r"[\w./-]+", url) else "sqlite:///kmnist-search.db"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StorageError(f"{without_password(url)!r} is not a database URL; write it like {example}") from None
    if _has_stray_at(parsed):
        raise StorageError(
            "the storage URL has more than one @. In a user name or password write @ as %40, : as %3A and / as %2F"
        )
    if parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        if not parsed.database:
            raise StorageError(f"{shown(parsed)} names no database; write it like {POSTGRES_EXAMPLE}")
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise StorageError(
            f"{parsed.drivername} databases are not supported; use SQLite, like {example}, "
            f"or Postgres, like {POSTGRES_EXAMPLE}"
        )
    if parsed.host:
        raise StorageError(f"{url!r} has too few slashes: write a file as sqlite:///{parsed.host}")
    if parsed.database in (None, "", ":memory:"):
        raise StorageError(f"a search needs a database file: write it like {example}")
    return parsed


def check_shared_url(url: str) -> URL:
    """Return the parsed URL of a database that several machines can use.

    Raises:
        StorageError: it is not a URL, or a SQLite file.
    """
    parsed = check_url(url)
    if parsed.get_backend_name() == "sqlite":
        raise StorageError(
            f"{shown(parsed)} is a SQLite file, which only the processes of one machine can use: its locks do not work "
            "on a shared disk. Give a database on a Postgres server with --storage or KMNIST_SEARCH_STORAGE, "
            f"like {POSTGRES_EXAMPLE}"
        )
    return parsed


def has_password(url: URL) -> bool:
    """Return whether a URL holds a secret."""
    return url.password is not None or bool(_hidden_keys(url))


def shown(url: URL) -> str:
    """Return the URL for display: without a password, even a misplaced one."""
    as_typed = url._replace(drivername=url.get_backend_name())
    return as_typed.difference_update_query(_hidden_keys(url)).render_as_string(hide_password=True)


def _hidden_keys(url: URL) -> list[str]:
    return [key for key in url.query if key not in SHOWN_QUERY]


def to_type(url: URL) -> str:
    """Return the URL to type for somebody who keeps the password elsewhere."""
    open_part = url.difference_update_query(_hidden_keys(url))._replace(
        password=None, drivername=url.get_backend_name()
    )
    return open_part.render_as_string()


def without_password(url: str) -> str:
    """Return the displayable part of a URL as typed, even if it is invalid."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is not None and not _has_stray_at(parsed):
        return shown(parsed)
    return f"...@{url.rpartition('@')[2].partition('?')[0]}" if "@" in url else url  # a password would be before it


def _has_stray_at(url: URL) -> bool:
    """Return whether an unescaped @ has split a password in two."""
    return url.get_backend_name() != "sqlite" and "@" in f"{url.host}{url.database}"
