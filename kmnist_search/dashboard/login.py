"""Who may enter: a user name, and a password from a file. Knows nothing of requests."""

import hashlib
import hmac
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from kmnist_search.errors import InputError

MAX_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class Login:
    """The one user there is. The password is not part of what is printed of it."""

    user: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.user or ":" in self.user or not self.user.isprintable():
            raise InputError(f"--user {self.user!r}: HTTP allows no empty name, and none with a colon. Choose another.")

    def admits(self, user: str, password: str) -> bool:
        """Return whether these are right; it takes as long for any that are wrong."""
        user_is_right = hmac.compare_digest(_digest(user), _digest(self.user))
        password_is_right = hmac.compare_digest(_digest(password), _digest(self.password))
        return user_is_right and password_is_right


def _digest(text: str) -> bytes:
    """Return as many bytes for any text, so that comparing them tells nothing of its length."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def read_password(file: Path) -> str:
    """Return the one line of a file that nobody else may read.

    Raises:
        InputError: the file cannot be read, is open to others, or is not one line.
    """
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"--password-file {file} cannot be read: {error.strerror}. Make it with: "
            f"(umask 077 && openssl rand -hex 12 > {file})"
        ) from None
    _check_rights(file, status)
    return _one_line(file, content)


def _check_rights(file: Path, status: os.stat_result) -> None:
    # root's own files may be for a group: so schedulers of containers hand secrets over.
    foreign = stat.S_IRWXO | (stat.S_IWGRP if status.st_uid == 0 else stat.S_IRWXG)
    if status.st_mode & foreign:
        raise InputError(
            f"--password-file {file}: others may read or change it (mode {stat.S_IMODE(status.st_mode):o}). "
            f"Make it yours alone with: chmod 600 {file}"
        )


def _one_line(file: Path, content: bytes) -> str:
    way_out = "Write the password into it, on one line, and nothing else."
    if len(content) > MAX_BYTES:
        raise InputError(f"--password-file {file} has more than {MAX_BYTES} bytes. {way_out}")
    try:
        password = content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise InputError(f"--password-file {file} is not UTF-8. {way_out}") from None
    if not password.strip():
        raise InputError(f"--password-file {file} is empty. {way_out}")
    if not password.isprintable():
        raise InputError(f"--password-file {file} has several lines, or control characters. {way_out}")
    return password
