"""Hashes of passwords: slow, few at a time, and renewed when they are no longer slow enough."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Literal

import pytest
from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST

from synapse.adapters.local.passwords import AT_A_TIME, MOST_WAITING, Argon2Passwords
from synapse.domain.errors import Overloaded

QUICK = PasswordHasher.from_parameters(CHEAPEST)


@pytest.fixture
async def passwords() -> AsyncIterator[Argon2Passwords]:
    quick = Argon2Passwords(QUICK)
    yield quick
    await quick.close()


async def test_the_password_matches_and_no_other_does(passwords: Argon2Passwords) -> None:
    kept = await passwords.hash("correct horse")

    assert await passwords.matches(kept, "correct horse")
    for other in ("correct hors", "Correct horse", "correct horse ", ""):
        assert not await passwords.matches(kept, other)


async def test_nobody_has_a_password_not_even_the_one_it_is_compared_with(
    passwords: Argon2Passwords,
) -> None:
    assert not await passwords.matches(None, "what nobody has")


async def test_for_nobody_the_same_work_is_done() -> None:
    verified: list[str] = []

    class Noting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
            verified.append(str(hash).rpartition("$")[0].rpartition("$")[0])
            return super().verify(hash, password)

    passwords = Argon2Passwords(Noting(time_cost=1, memory_cost=8, parallelism=1))
    kept = await passwords.hash("correct horse")

    await passwords.matches(kept, "battery staple")
    await passwords.matches(None, "battery staple")
    await passwords.close()

    assert len(verified) == 2
    assert verified[0] == verified[1]


async def test_however_a_keyboard_composes_a_letter_it_is_the_same(
    passwords: Argon2Passwords,
) -> None:
    kept = await passwords.hash("schön und gut")

    assert await passwords.matches(kept, "scho\u0308n und gut")


async def test_any_text_may_be_tried(passwords: Argon2Passwords) -> None:
    kept = await passwords.hash("correct horse")

    for text in ("\x00", "\ud800", "🐴" * 400):
        assert not await passwords.matches(kept, text)
        assert await passwords.matches(await passwords.hash(text), text)


async def test_a_damaged_hash_matches_nothing(passwords: Argon2Passwords) -> None:
    assert not await passwords.matches("$argon2id$v=19$damaged", "correct horse")


async def test_two_hashes_of_a_password_differ(passwords: Argon2Passwords) -> None:
    assert await passwords.hash("correct horse") != await passwords.hash("correct horse")


async def test_hashes_are_those_that_rfc_9106_recommends_and_others_are_outdated() -> None:
    passwords = Argon2Passwords()

    kept = await passwords.hash("correct horse")

    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert not passwords.is_outdated(kept)
    assert passwords.is_outdated(QUICK.hash("correct horse"))
    await passwords.close()


async def test_so_many_may_wait_and_one_more_is_told_to_come_again() -> None:
    release = threading.Event()

    class Slow(PasswordHasher):
        def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
            release.wait(10)
            return "slow"

    passwords = Argon2Passwords(Slow())
    waiting = [
        asyncio.create_task(passwords.hash("correct horse"))
        for _ in range(AT_A_TIME + MOST_WAITING)
    ]
    await asyncio.sleep(0)
    # Those that are given up still have their turn: they make no room before.
    for task in waiting[:10]:
        task.cancel()
    await asyncio.sleep(0)

    with pytest.raises(Overloaded):
        await passwords.hash("one too many")

    release.set()
    assert set(await asyncio.gather(*waiting[10:])) == {"slow"}
    assert await passwords.hash("there is room again") == "slow"
    await passwords.close()
