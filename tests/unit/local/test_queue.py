"""LocalJobQueue: order, fair shares, bounds, and who is woken when."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from synapse.adapters.local.queue import LocalJobQueue, Returns
from synapse.domain.errors import Unavailable
from synapse.domain.extension import NO_EXTENSIONS
from synapse.domain.inference import TOKEN_IDS
from synapse.domain.job import JobId, Priority, SlaTier
from tests.factories import NOW, a_message
from tests.patience import PATIENCE_S

BRONZE = SlaTier.BRONZE


async def test_jobs_of_a_priority_come_first_sent_first() -> None:
    queue = LocalJobQueue()
    messages = [a_message(sent_at=NOW + second) for second in range(5)]
    await queue.send(messages)

    assert queue.take("echo", BRONZE, 3) + queue.take("echo", BRONZE, 10) == messages


async def test_a_high_job_overtakes_a_backlog_of_normal_ones() -> None:
    queue = LocalJobQueue()
    await queue.send([a_message() for _ in range(100)])
    queue.take("echo", BRONZE, 50)
    urgent = a_message(priority=Priority.HIGH, sent_at=NOW + 1000)

    await queue.send([urgent])

    assert queue.take("echo", BRONZE, 1) == [urgent]


async def test_low_jobs_get_places_while_high_ones_keep_coming() -> None:
    queue = LocalJobQueue()
    await queue.send([a_message(priority=Priority.LOW) for _ in range(3)])
    taken = []
    for _ in range(100):
        await queue.send([a_message(priority=Priority.HIGH) for _ in range(4)])
        taken += queue.take("echo", BRONZE, 3)

    assert [message.priority for message in taken].count(Priority.LOW) == 3


async def test_models_wait_in_queues_of_their_own() -> None:
    queue = LocalJobQueue()
    echo, other = a_message(), a_message(model="other")
    await queue.send([echo, other])

    assert queue.take("other", BRONZE, 10) == [other]
    assert queue.waiting("echo", BRONZE) == 1
    assert queue.waiting("nobody", BRONZE) == 0


async def test_a_job_sent_twice_waits_once_in_its_old_place_with_the_new_message() -> None:
    queue = LocalJobQueue()
    first, second = a_message(job_id=JobId("a")), a_message(job_id=JobId("b"))
    again = a_message(job_id=JobId("a"), losses=1)
    await queue.send([first, second])

    await queue.send([again])

    assert queue.take("echo", BRONZE, 10) == [again, second]


async def test_a_job_sent_with_another_priority_moves() -> None:
    queue = LocalJobQueue()
    await queue.send([a_message(job_id=JobId("a"), priority=Priority.LOW)])
    moved = a_message(job_id=JobId("a"), priority=Priority.HIGH)

    await queue.send([moved])

    assert await queue.depth("echo") == {Priority.HIGH: 1, Priority.NORMAL: 0, Priority.LOW: 0}
    assert queue.take("echo", BRONZE, 10) == [moved]


async def test_a_full_queue_refuses_all_of_a_send_and_says_when_to_come_back() -> None:
    queue = LocalJobQueue(max_waiting=3)
    waiting = [a_message(), a_message()]
    await queue.send(waiting)

    with pytest.raises(Unavailable) as refusal:
        await queue.send([a_message(), a_message()])

    assert refusal.value.code == "queue_full"
    assert refusal.value.retry_after_s > 0
    assert queue.take("echo", BRONZE, 10) == waiting


async def test_a_full_queue_still_takes_a_job_that_waits_already() -> None:
    queue = LocalJobQueue(max_waiting=1)
    message = a_message()
    await queue.send([message])

    await queue.send([message])

    assert (len(queue), queue.room()) == (1, 0)


async def test_what_is_put_back_is_first_again_even_if_the_queue_is_full() -> None:
    queue = LocalJobQueue(max_waiting=3)
    messages = [a_message() for _ in range(3)]
    await queue.send(messages)
    taken = queue.take("echo", BRONZE, 2)
    await queue.send([a_message(), a_message()])

    queue.put_back(taken)

    assert queue.take("echo", BRONZE, 3) == messages


async def test_who_gives_back_finds_room_in_a_full_queue() -> None:
    queue = LocalJobQueue(max_waiting=2)
    first, second, newer = a_message(), a_message(), a_message()
    await queue.send([first, second])
    queue.take("echo", BRONZE, 1)
    await queue.send([newer])

    await Returns(queue).send([first])

    assert queue.room() == 0
    await queue.send([second])
    with pytest.raises(Unavailable):
        await queue.send([a_message()])
    assert queue.take("echo", BRONZE, 9) == [second, newer, first]


async def test_a_discarded_job_is_gone() -> None:
    queue = LocalJobQueue()
    kept, cancelled = a_message(), a_message()
    await queue.send([kept, cancelled])

    queue.discard(cancelled.job_id)
    queue.discard(JobId("unknown"))

    assert queue.take("echo", BRONZE, 10) == [kept]
    assert len(queue) == 0


async def test_what_waits_is_counted_by_kind_whatever_becomes_of_it() -> None:
    queue = LocalJobQueue()
    gold, moved = a_message(sla=SlaTier.GOLD), a_message(sla=SlaTier.SILVER)
    await queue.send([gold, moved, a_message(model="embed"), a_message(), a_message()])
    await queue.send([gold, replace(moved, priority=Priority.HIGH)])
    assert queue.waiting_by_kind() == {
        ("echo", SlaTier.GOLD, NO_EXTENSIONS): 1,
        ("echo", SlaTier.SILVER, NO_EXTENSIONS): 1,
        ("echo", SlaTier.BRONZE, NO_EXTENSIONS): 2,
        ("embed", SlaTier.BRONZE, NO_EXTENSIONS): 1,
    }

    queue.discard(gold.job_id)
    taken = queue.take("echo", BRONZE, 2)
    queue.put_back(taken[1:])

    assert queue.waiting_by_kind() == {
        ("echo", SlaTier.SILVER, NO_EXTENSIONS): 1,
        ("echo", SlaTier.BRONZE, NO_EXTENSIONS): 1,
        ("embed", SlaTier.BRONZE, NO_EXTENSIONS): 1,
    }


async def test_a_job_counts_with_all_its_items_whatever_becomes_of_it() -> None:
    queue, kind = LocalJobQueue(), ("echo", BRONZE, NO_EXTENSIONS)
    large, moved = a_message(items=5), a_message(items=3)
    await queue.send([large, moved, a_message()])
    await queue.send([large, replace(moved, priority=Priority.HIGH)])
    assert queue.waiting_by_kind() == {kind: 9}

    taken = queue.take("echo", BRONZE, 4)
    assert queue.waiting_by_kind() == {kind: 1}
    queue.put_back(taken)
    queue.discard(large.job_id)

    assert queue.waiting_by_kind() == {kind: 4}


async def test_what_not_every_pool_can_run_waits_apart() -> None:
    queue = LocalJobQueue()
    plain, ids = a_message(), a_message(requires=TOKEN_IDS)
    await queue.send([ids, plain])

    assert queue.oldest("echo", BRONZE) == plain
    assert queue.waiting("echo", BRONZE, TOKEN_IDS) == 1
    assert queue.take("echo", BRONZE, 10) == [plain]
    await asyncio.wait_for(queue.wait("echo", BRONZE, requires=TOKEN_IDS), PATIENCE_S)
    assert queue.take("echo", BRONZE, 10, TOKEN_IDS) == [ids]


async def test_the_tiers_of_a_model_wait_apart() -> None:
    queue = LocalJobQueue()
    bronze = [a_message(priority=Priority.HIGH) for _ in range(3)]
    gold = a_message(sla=SlaTier.GOLD, priority=Priority.LOW)
    await queue.send([*bronze, gold])
    waiting = asyncio.create_task(queue.wait("echo", SlaTier.SILVER))

    assert queue.take("echo", SlaTier.GOLD, 10) == [gold]
    assert queue.waiting("echo", BRONZE) == 3
    assert await queue.depth("echo") == {Priority.HIGH: 3, Priority.NORMAL: 0, Priority.LOW: 0}
    await asyncio.sleep(0)
    assert not waiting.done()
    await queue.send([a_message(sla=SlaTier.SILVER)])
    await asyncio.wait_for(waiting, PATIENCE_S)


async def test_a_job_sent_with_another_tier_moves() -> None:
    queue = LocalJobQueue()
    first = a_message(sla=SlaTier.SILVER)
    await queue.send([first])
    moved = replace(first, sla=SlaTier.GOLD)

    await queue.send([moved])

    assert queue.waiting("echo", SlaTier.SILVER) == 0
    assert queue.take("echo", SlaTier.GOLD, 10) == [moved]


async def test_the_oldest_is_the_longest_waiting_job_of_any_priority() -> None:
    queue = LocalJobQueue()
    assert queue.oldest("echo", BRONZE) is None
    await queue.send([a_message(priority=Priority.LOW, sent_at=NOW - 30)])
    await queue.send([a_message(priority=Priority.HIGH, sent_at=NOW - 10)])

    oldest = queue.oldest("echo", BRONZE)
    assert oldest is not None
    assert oldest.sent_at == NOW - 30


async def test_a_waiter_is_woken_by_the_first_job() -> None:
    queue = LocalJobQueue()
    waiting = asyncio.create_task(queue.wait("echo", BRONZE))
    await asyncio.sleep(0)
    await queue.send([a_message(model="other")])
    await asyncio.sleep(0)
    assert not waiting.done()

    await queue.send([a_message()])

    await asyncio.wait_for(waiting, PATIENCE_S)


async def test_a_waiter_for_a_full_batch_sleeps_until_it_is_full() -> None:
    queue = LocalJobQueue()
    waiting = asyncio.create_task(queue.wait("echo", BRONZE, at_least=3))
    await queue.send([a_message(), a_message()])
    await asyncio.sleep(0)
    assert not waiting.done()

    await queue.send([a_message()])

    await asyncio.wait_for(waiting, PATIENCE_S)


async def test_waiting_for_what_waits_already_returns_at_once() -> None:
    queue = LocalJobQueue()
    await queue.send([a_message()])

    await asyncio.wait_for(queue.wait("echo", BRONZE), PATIENCE_S)


async def test_a_waiter_that_finds_nothing_left_sleeps_again() -> None:
    queue = LocalJobQueue()
    first, second = (asyncio.create_task(queue.wait("echo", BRONZE)) for _ in range(2))
    await asyncio.sleep(0)
    await queue.send([a_message()])
    queue.take("echo", BRONZE, 1)
    await asyncio.sleep(0)
    assert not first.done() and not second.done()

    await queue.send([a_message()])

    await asyncio.wait_for(asyncio.gather(first, second), PATIENCE_S)


async def test_a_cancelled_waiter_leaves_nothing_behind() -> None:
    queue = LocalJobQueue()
    waiting = asyncio.create_task(queue.wait("echo", BRONZE))
    await asyncio.sleep(0)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    await queue.send([a_message()])
    assert queue.waiting("echo", BRONZE) == 1


async def test_a_long_queue_is_taken_from_without_walking_through_it() -> None:
    queue = LocalJobQueue()
    await queue.send([a_message(job_id=JobId(str(n))) for n in range(20_000)])

    async with asyncio.timeout(PATIENCE_S):
        taken = [message for _ in range(2000) for message in queue.take("echo", BRONZE, 10)]

    assert [message.job_id for message in taken] == [str(n) for n in range(20_000)]
