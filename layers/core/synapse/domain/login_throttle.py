"""How often somebody may guess a password: a few times, then after ever longer pauses."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass

from synapse.domain.errors import LimitReached

FREE_ATTEMPTS = 5
"""For one user from one address."""

FREE_ATTEMPTS_OF_ADDRESS = 50
"""For whichever users: an office may share an address, and so may somebody who tries them all."""

FIRST_PAUSE_S = 10.0
LONGEST_PAUSE_S = 900.0
ALL_FORGIVEN_S = 3600.0
"""In that time as many failures are forgiven as are free."""

MAX_ENTRIES = 20_000

SUBSCRIBER_BITS = 64
"""Of an address of IPv6: whoever has one has all that begin alike (RFC 6177), 2^64 of them."""

Key = tuple[str, str]


@dataclass(slots=True)
class _Failures:
    count: float = 0.0
    last_at: float = 0.0
    locked_until: float = 0.0


class LoginThrottle:
    """Failed logins by user and address, and by address alone; the oldest are forgotten first.

    An attempt counts as failed from its beginning, so that those made side by side count too.
    """

    def __init__(self) -> None:
        self._failures: OrderedDict[Key, _Failures] = OrderedDict()

    def begin(self, username: str, address: str, now: float) -> None:
        """Note an attempt.

        Raises:
            LimitReached: it is too soon; it does not count.
        """
        keys = _keys(username, address)
        wait_s = max(self._locked_for(key, now) for key, _ in keys)
        if wait_s > 0:
            raise LimitReached(
                "too many failed logins; wait before the next one",
                retry_after_s=math.ceil(wait_s),
                code="too_many_logins",
            )
        for key, free in keys:
            self._count(key, free, now)

    def succeeded(self, username: str, address: str) -> None:
        """The attempt was the right one: the user's failures from there are forgiven."""
        (own, _), _ = _keys(username, address)
        self._failures.pop(own, None)
        self._take_back(username, address)

    def undecided(self, username: str, address: str) -> None:
        """The attempt came to nothing, and not because of who made it."""
        self._take_back(username, address)

    def _locked_for(self, key: Key, now: float) -> float:
        known = self._failures.get(key)
        return 0.0 if known is None else known.locked_until - now

    def _count(self, key: Key, free: int, now: float) -> None:
        known = self._failures.get(key)
        if known is None:
            known = self._failures[key] = _Failures(last_at=now)
        self._failures.move_to_end(key)
        forgiven = free * (now - known.last_at) / ALL_FORGIVEN_S
        known.count = max(0.0, known.count - forgiven) + 1
        known.last_at = now
        known.locked_until = now + _pause_s(known.count - free)
        while len(self._failures) > MAX_ENTRIES:
            self._failures.popitem(last=False)

    def _take_back(self, username: str, address: str) -> None:
        for key, free in _keys(username, address):
            known = self._failures.get(key)
            if known is not None:
                known.count = max(0.0, known.count - 1)
                known.locked_until = known.last_at + _pause_s(known.count - free)


def _keys(username: str, address: str) -> tuple[tuple[Key, int], tuple[Key, int]]:
    """What an attempt counts for, and how many of each are free."""
    subscriber = _subscriber(address)
    own = (username.casefold(), subscriber)
    return (own, FREE_ATTEMPTS), (("", subscriber), FREE_ATTEMPTS_OF_ADDRESS)


def _subscriber(address: str) -> str:
    """Who has an address, as far as that can be told by it."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, SUBSCRIBER_BITS), strict=False))


def _pause_s(excess: float) -> float:
    """The pause after the last free attempt, and after each one beyond it."""
    doublings = min(math.ceil(excess), 20)
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**doublings) if doublings >= 0 else 0.0
