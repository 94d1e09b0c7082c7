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
        f"--host {host}: without --password-file FILE the dashboard has no login, and everybody who can reach it can "
        "see, change and delete studies. Set a password; or leave out --host and connect with "
        "ssh -L 8080:127.0.0.1:8080; or, if only your own containers can reach the address, add --i-know-it-is-open."
    )
