"""Requests that are sent again: who gets the answer of the first, and who does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from synapse.api import retries as module
from synapse.api.replies import Answered, Reply, StreamReply
from synapse.api.retries import KEYED_S, UNKEYED_S, Attempt, NoRetries, Retries
from synapse.domain.access import Principal
from synapse.domain.errors import IdempotencyConflict, Overloaded
from tests.fakes import FakeClock
from tests.patience import until

ALICE, BOB = Principal("acme", "alice"), Principal("acme", "bob")


class Work:
    """Counts how often it was begun, and is done when the test says so."""

    def __init__(self, make: Callable[[int], Answered] | None = None) -> None:
        self.begun = 0
        self.cancelled = 0
        self.done = asyncio.Event()
        self.error: Exception | None = None
        self._make = make or (lambda number: Reply({"answer": number}))

    async def __call__(self) -> Answered:
        self.begun += 1
        number = self.begun
        try:
            await self.done.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return self._make(number)


def attempt(retry: int | None = None, key: str | None = None, **changes: Any) -> Attempt:
    fields: dict[str, Any] = {"caller": ALICE, "route": "/v1/chat/completions", "body": "{}"}
    return Attempt(**{**fields, "key": key, "retries": retry, **changes})


async def gone(task: asyncio.Task[Answered]) -> None:
    """The client of a request closes its connection."""
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_second_attempt_gets_the_answer_that_is_still_being_made() -> None:
    retries, work = Retries(), Work()
    first = asyncio.create_task(retries.answer(attempt(0), work))
    await gone(first)

    second = asyncio.create_task(retries.answer(attempt(1), work))
    await settled()
    work.done.set()

    answered = await second
    assert isinstance(answered, Reply)
    assert answered.text() == '{"answer":1}'
    assert answered.headers["x-synapse-retry"] == "attached"
    assert (work.begun, work.cancelled) == (1, 0)


async def test_a_second_attempt_gets_the_answer_that_was_lost_on_its_way() -> None:
    retries, work = Retries(), Work()
    work.done.set()
    await retries.answer(attempt(0), work)

    assert (await retries.answer(attempt(1), work)).headers["x-synapse-retry"] == "attached"
    assert work.begun == 1


async def test_equal_first_attempts_are_requests_of_their_own() -> None:
    retries, work = Retries(), Work()
    work.done.set()

    answers = await asyncio.gather(*(retries.answer(attempt(0), work) for _ in range(3)))

    assert work.begun == 3
    assert all("x-synapse-retry" not in each.headers for each in answers)


async def test_of_several_equal_ones_a_retry_takes_that_whose_client_has_gone() -> None:
    retries, work = Retries(), Work()
    tasks = [asyncio.create_task(retries.answer(attempt(0), work)) for _ in range(3)]
    await gone(tasks[1])

    again = asyncio.create_task(retries.answer(attempt(1), work))
    await settled()
    work.done.set()

    answered = await again
    assert isinstance(answered, Reply)
    assert answered.text() == '{"answer":2}'
    assert [(await tasks[at]).headers for at in (0, 2)] == [{}, {}]
    assert work.begun == 3


async def test_of_several_that_were_all_answered_a_retry_takes_none() -> None:
    retries, work = Retries(), Work()
    work.done.set()
    for _ in range(2):
        await retries.answer(attempt(0), work)

    await retries.answer(attempt(1), work)

    assert work.begun == 3


OTHERS: list[dict[str, Any]] = [
    {"caller": BOB},
    {"caller": Principal("other", "alice")},
    {"route": "/v1/x"},
]


@pytest.mark.parametrize(
    ("key", "other"),
    [(None, {"body": "[]"}), *((key, other) for key in (None, "k") for other in OTHERS)],
)
async def test_other_accounts_bodies_and_routes_are_other_requests(
    key: str | None, other: dict[str, Any]
) -> None:
    retries, work = Retries(), Work()
    work.done.set()
    await retries.answer(attempt(0, key), work)

    await retries.answer(attempt(1, key, **other), work)

    assert work.begun == 2


async def test_a_request_without_key_or_count_is_not_remembered_and_ends_with_its_client() -> None:
    retries, work = Retries(), Work()
    task = asyncio.create_task(retries.answer(attempt(), work))

    await gone(task)

    assert (work.begun, work.cancelled, len(retries)) == (1, 1, 0)


async def test_one_whose_client_does_not_come_back_is_ended() -> None:
    retries, work = Retries(grace_s=0.2), Work()
    await gone(asyncio.create_task(retries.answer(attempt(0), work)))
    assert work.cancelled == 0

    await until(lambda: (work.cancelled, len(retries)) == (1, 0))


async def test_one_whose_client_comes_back_in_time_is_not_ended() -> None:
    retries, work = Retries(grace_s=0.2), Work()
    await gone(asyncio.create_task(retries.answer(attempt(0), work)))
    again = asyncio.create_task(retries.answer(attempt(1), work))

    await asyncio.sleep(0.3)
    work.done.set()

    assert (await again).headers["x-synapse-retry"] == "attached"


async def test_a_key_gets_the_first_answer_whoever_counts() -> None:
    retries, work = Retries(), Work()
    tasks = [asyncio.create_task(retries.answer(attempt(None, "k"), work)) for _ in range(4)]
    await settled()
    work.done.set()

    texts = {each.text() for each in await asyncio.gather(*tasks) if isinstance(each, Reply)}
    later = await retries.answer(attempt(0, "k"), work)

    assert texts == {'{"answer":1}'}
    assert later.headers["x-synapse-retry"] == "attached"
    assert work.begun == 1


async def test_a_request_with_a_key_goes_on_without_its_client() -> None:
    retries, work = Retries(grace_s=0.0), Work()
    await gone(asyncio.create_task(retries.answer(attempt(None, "k"), work)))
    await asyncio.sleep(0.02)
    work.done.set()

    answered = await retries.answer(attempt(None, "k"), work)

    assert isinstance(answered, Reply)
    assert answered.text() == '{"answer":1}'
    assert (work.begun, work.cancelled) == (1, 0)


async def test_a_key_that_was_used_for_another_body_is_refused() -> None:
    retries, work = Retries(), Work()
    work.done.set()
    await retries.answer(attempt(None, "k"), work)

    with pytest.raises(IdempotencyConflict) as refusal:
        await retries.answer(attempt(None, "k", body="[]"), work)

    assert refusal.value.param == "Idempotency-Key"
    assert work.begun == 1


@pytest.mark.parametrize(("key", "kept_s"), [(None, UNKEYED_S), ("k", KEYED_S)])
async def test_answers_are_forgotten_in_time(key: str | None, kept_s: float) -> None:
    clock, work = FakeClock(), Work()
    retries = Retries(clock)
    work.done.set()
    await retries.answer(attempt(0, key), work)

    clock.advance(kept_s - 1)
    await retries.answer(attempt(1, key), work)
    assert work.begun == 1
    clock.advance(1)
    await retries.answer(attempt(1, key), work)

    assert work.begun == 2


async def test_errors_are_not_kept() -> None:
    retries, work = Retries(), Work()
    work.done.set()
    work.error = Overloaded("full", retry_after_s=1)
    for number in range(2):
        with pytest.raises(Overloaded):
            await retries.answer(attempt(number, "k"), work)
    work.error = None

    assert "x-synapse-retry" not in (await retries.answer(attempt(2, "k"), work)).headers
    assert work.begun == 3


async def test_what_is_kept_is_bounded_in_bytes_and_in_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    retries = Retries(max_bytes=1000)
    work = Work(lambda number: Reply("x" * 100))
    work.done.set()
    for number in range(50):
        await retries.answer(attempt(0, f"k{number}"), work)
    assert len(retries) == 10

    monkeypatch.setattr(module, "MAX_KEPT", 5)
    for number in range(50):
        await retries.answer(attempt(0, body=str(number)), work)
    assert len(retries) == 5


def a_stream(closed: list[int]) -> Callable[[int], Answered]:
    async def chunks(number: int) -> AsyncGenerator[bytes, None]:
        try:
            yield f"from {number}".encode()
        finally:
            closed.append(number)

    def make(number: int) -> Answered:
        return StreamReply(chunks(number), "text/event-stream")

    return make


async def first_of(answered: Answered) -> bytes:
    assert isinstance(answered, StreamReply)
    return await anext(answered.chunks)


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_retry_before_the_first_byte_reads_the_same_stream(key: str | None) -> None:
    retries, work = Retries(), Work(a_stream([]))
    await gone(asyncio.create_task(retries.answer(attempt(0, key), work)))
    again = asyncio.create_task(retries.answer(attempt(1, key), work))
    await settled()
    work.done.set()

    assert await first_of(await again) == b"from 1"
    assert work.begun == 1


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_retry_of_a_stream_that_is_being_read_starts_anew(key: str | None) -> None:
    retries, work = Retries(), Work(a_stream([]))
    work.done.set()
    assert await first_of(await retries.answer(attempt(0, key), work)) == b"from 1"

    again = await retries.answer(attempt(1, key), work)

    assert await first_of(again) == b"from 2"
    assert "x-synapse-retry" not in again.headers


async def test_two_who_wait_for_one_stream_get_one_each() -> None:
    retries, work = Retries(), Work(a_stream([]))
    tasks = [asyncio.create_task(retries.answer(attempt(None, "k"), work)) for _ in range(2)]
    await settled()
    work.done.set()

    parts = [await first_of(answered) for answered in await asyncio.gather(*tasks)]

    assert sorted(parts) == [b"from 1", b"from 2"]
    assert parts[1] == b"from 1"  # the last to come: the first is likely to have gone


async def test_the_key_of_a_stream_is_refused_for_another_body() -> None:
    retries, work = Retries(), Work(a_stream([]))
    work.done.set()
    await retries.answer(attempt(None, "k"), work)

    with pytest.raises(IdempotencyConflict):
        await retries.answer(attempt(None, "k", body="[]"), work)


async def test_a_stream_that_nobody_comes_for_is_closed() -> None:
    closed: list[int] = []
    retries, work = Retries(grace_s=0.01), Work(a_stream(closed))

    async def begun() -> Answered:
        answered = await work()
        await first_of(answered)
        return answered

    await gone(asyncio.create_task(retries.answer(attempt(0), begun)))
    work.done.set()
    await until(lambda: (len(retries), closed) == (0, [1]))

    await retries.answer(attempt(1), work)
    assert work.begun == 2


async def test_where_nobody_remembers_every_attempt_is_a_request_that_ends_with_its_client() -> (
    None
):
    retries, work = NoRetries(), Work()
    await gone(asyncio.create_task(retries.answer(attempt(0, "k"), work)))
    work.done.set()

    await retries.answer(attempt(1, "k", body="[]"), work)

    assert (work.begun, work.cancelled, len(retries)) == (2, 1, 0)


async def test_closing_ends_what_is_under_way() -> None:
    retries, work = Retries(), Work()
    await gone(asyncio.create_task(retries.answer(attempt(None, "k"), work)))

    await retries.aclose()

    assert (work.cancelled, len(retries)) == (1, 0)
