"""Rate limit of wrong passwords by address: a few tries at once, then one every few seconds.

No address is locked out for good: behind a proxy all browsers have the proxy's address, and one that guesses would
lock out the others.
"""

import ipaddress
import threading
import time
from collections import OrderedDict

#: Tries at once: people mistype, and a browser sends several requests with the same wrong password.
TRIES = 10
SECONDS_A_TRY = 6.0
#: Addresses that are kept; beyond that the one whose last try is the oldest is dropped.
MAX_ADDRESSES = 10_000
#: Whoever has one IPv6 address usually has its whole network.
IPV6_NETWORK_BITS = 64


class LoginRateLimit:
    """Counts tries by address; a try that turns out to be right is given back. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def seconds_to_wait(self, address: str) -> float:
        """Take one of an address's tries and return 0; if it has none, return the seconds until it has one."""
        network, now = _network(address), time.monotonic()
        with self._lock:
            used = self._used_now(network, now)
            if used > TRIES - 1:
                return (used - (TRIES - 1)) * SECONDS_A_TRY
            self._used[network] = (used + 1, now)
            self._used.move_to_end(network)
            while len(self._used) > MAX_ADDRESSES:
                self._used.popitem(last=False)
        return 0.0

    def give_back(self, address: str) -> None:
        """Give back the try that was taken last: the password was right."""
        network, now = _network(address), time.monotonic()
        with self._lock:
            used = self._used_now(network, now) - 1
            if used > 0:
                self._used[network] = (used, now)
            else:
                self._used.pop(network, None)

    def _used_now(self, network: str, now: float) -> float:
        used, since = self._used.get(network, (0.0, now))
        return max(0.0, used - (now - since) / SECONDS_A_TRY)


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((int(parsed), IPV6_NETWORK_BITS), strict=False))
