"""Check of the address to listen on: this machine only, or others too."""

import ipaddress

from kmnist_search.errors import InputError


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(host: str, *, is_open: bool, has_login: bool) -> None:
    """Refuse an address that other machines can reach, unless there is a login or the user has agreed.

    Raises:
        InputError: others can reach the address, and nothing protects it.
    """
    if has_login or is_open or is_loopback(host):
        return
    raise InputError(
        f"--host {host}: the dashboard has no login without --password-file FILE, and whoever can reach it can see, "
        "change and delete studies. Give it a password; or leave --host out and from elsewhere use "
        "ssh -L 8080:127.0.0.1:8080; or, where only your own containers reach the address, add --i-know-it-is-open."
    )
