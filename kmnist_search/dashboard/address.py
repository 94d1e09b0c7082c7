"""Whom an address lets in: this machine alone, or others. Knows nothing of requests."""

import ipaddress

from kmnist_search.errors import InputError


def is_own(host: str) -> bool:
    """Return whether nobody but this machine reaches an address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(host: str, *, is_open: bool, has_login: bool) -> None:
    """Refuse an address that others may reach, unless they need a password or that is wanted.

    Raises:
        InputError: it is another address than this machine's own, and nothing protects it.
    """
    if has_login or is_open or is_own(host):
        return
    raise InputError(
        f"--host {host}: the dashboard has no login without --password-file FILE, and whoever can reach it can see, "
        "change and delete studies. Give it a password; or leave --host out and from elsewhere use "
        "ssh -L 8080:127.0.0.1:8080; or, where only your own containers reach the address, add --i-know-it-is-open."
    )
