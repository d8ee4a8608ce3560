"""Names to addresses, by the system's resolver.

It can only be asked in a thread, and a question cannot be called off: where name servers do not
answer, a thread is held for longer than anybody waits. So a tenant has few of them, and a name is
asked for once at a time, however many wait for it.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from synapse.domain.errors import Unavailable

LOOKUPS = 64
PER_TENANT = 8
"""That have not ended, whether or not somebody still waits for them."""

PATIENCE_S = 5.0
"""For one of them to end, if there are as many as there may be."""

Place = tuple[str, int]
Ask = Callable[[str, int], Sequence[str]]
"""The addresses of a host, in the resolver's order. Raises OSError if there are none to be had."""


class Lookups:
    """The lookups that are under way, of one event loop."""

    def __init__(self, *, ask: Ask | None = None, patience_s: float = PATIENCE_S) -> None:
        self._ask = ask or addresses_of
        self._patience_s = patience_s
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="synapse-lookup")
        self._under_way: dict[Place, asyncio.Future[Sequence[str]]] = {}
        self._of_tenant: Counter[str] = Counter()
        self._changed = asyncio.Event()

    async def begun(self, tenant: str, host: str, port: int) -> asyncio.Future[Sequence[str]]:
        """A lookup that has begun, perhaps for somebody else; it raises OSError.

        Raises:
            Unavailable: there are too many already, of the tenant or in all; none was begun.
        """
        place = (host, port)
        try:
            async with asyncio.timeout(self._patience_s):
                while place not in self._under_way and not self._has_room(tenant):
                    await self._changed.wait()
        except TimeoutError as error:
            raise Unavailable("too many names are being looked up") from error
        if place not in self._under_way:
            self._begin(tenant, place)
        # Who gives up waiting leaves it to the others.
        return asyncio.shield(self._under_way[place])

    def _has_room(self, tenant: str) -> bool:
        return self._of_tenant[tenant] < PER_TENANT and len(self._under_way) < LOOKUPS

    def _begin(self, tenant: str, place: Place) -> None:
        loop = asyncio.get_running_loop()
        lookup = loop.run_in_executor(self._threads, self._ask, *place)
        self._under_way[place] = lookup
        self._of_tenant[tenant] += 1
        lookup.add_done_callback(partial(self._end, tenant, place))
        self._tell()

    def _end(self, tenant: str, place: Place, lookup: asyncio.Future[Sequence[str]]) -> None:
        del self._under_way[place]
        self._of_tenant[tenant] -= 1
        if not self._of_tenant[tenant]:
            del self._of_tenant[tenant]
        if not lookup.cancelled():
            lookup.exception()  # looked at: perhaps nobody waits for it any more
        self._tell()

    def _tell(self) -> None:
        """Let all who wait look again."""
        self._changed.set()
        self._changed.clear()


def addresses_of(host: str, port: int) -> Sequence[str]:
    """What the system's resolver says, in its order; it may take a minute over it."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in entries))
