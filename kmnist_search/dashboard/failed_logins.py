"""How often an address may guess a password. Knows nothing of requests or passwords.

Each address has a few tries at once, and then one each few seconds. No address is locked out for good: behind a proxy
all browsers come from the proxy's, and one that guesses would lock the others out.
"""

import ipaddress
import threading
import time
from collections import OrderedDict

#: Tries at once: somebody who mistypes, or whose browser asks for several things with the same wrong password.
TRIES = 10
SECONDS_A_TRY = 6.0
#: Addresses kept; beyond that the one that failed longest ago is forgotten.
MAX_ADDRESSES = 10_000
#: Who has one IPv6 address has all of its network.
IPV6_NETWORK_BITS = 64


class FailedLogins:
    """Counts tries by address; a try that turns out to be right is given back. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def seconds_to_wait(self, address: str) -> float:
        """Take one of the tries of an address and return 0, or return in how many seconds there is one."""
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
        """The try that was taken was right."""
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
