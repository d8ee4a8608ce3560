"""Argon2id hashes of passwords, with what RFC 9106 recommends where memory is scarce.

A hash takes 64 MiB and a tenth of a second on purpose. So only a few are computed at a time, in
threads, and only so many may wait for their turn: logins cannot starve the rest of the server.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from synapse.domain.errors import Overloaded

T = TypeVar("T")

AT_A_TIME = 2
MOST_WAITING = 32

NOBODYS_PASSWORD = "what nobody has"


class Argon2Passwords:
    """See the port `PasswordHasher`."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
        self._threads = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="synapse-argon2")
        self._under_way = 0
        self._nobodys: str | None = None

    async def hash(self, password: str) -> str:
        """See the port."""
        return await self._in_turn(lambda: self._hasher.hash(_prepared(password)))

    async def matches(self, kept: str | None, password: str) -> bool:
        """See the port."""
        if self._nobodys is None:
            # Made before it is known whether it is needed, so that nobody can tell.
            self._nobodys = await self.hash(NOBODYS_PASSWORD)
        against = self._nobodys if kept is None else kept
        is_it = await self._in_turn(lambda: self._verify(against, password))
        return is_it and kept is not None

    def is_outdated(self, kept: str) -> bool:
        """See the port."""
        return self._hasher.check_needs_rehash(kept)

    async def close(self) -> None:
        """Finish what was begun."""
        await asyncio.to_thread(self._threads.shutdown)

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._under_way >= AT_A_TIME + MOST_WAITING:
            raise Overloaded("too many logins at once; try again", retry_after_s=2)
        self._under_way += 1
        hashing = asyncio.get_running_loop().run_in_executor(self._threads, work)
        hashing.add_done_callback(self._finished)
        # It goes on if its caller is gone, and counts until it has ended.
        return await asyncio.shield(hashing)

    def _finished(self, hashing: asyncio.Future[T]) -> None:
        self._under_way -= 1

    def _verify(self, kept: str, password: str) -> bool:
        try:
            return self._hasher.verify(kept, _prepared(password))
        except (VerificationError, InvalidHashError):
            return False


def _prepared(password: str) -> bytes:
    """The same bytes for the same characters, however a keyboard composes them."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
