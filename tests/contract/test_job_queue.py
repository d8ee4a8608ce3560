"""JobQueue: everything that is sent arrives, whole, and is counted while it waits."""

from __future__ import annotations

from synapse.domain.job import JobId, Priority
from tests.contract.openers import QueueCase
from tests.factories import NOW, a_message
from tests.fakes import FakeClock


async def test_a_message_arrives_exactly_as_it_was_sent(queue_case: QueueCase) -> None:
    message = a_message(
        job_id=JobId("job-é-🦊"),
        version="2026-08",
        priority=Priority.HIGH,
        tokens=4096,
        sent_at=NOW + 0.123456,
        deadline_at=NOW + 60.5,
        losses=2,
        tenant="acme é",
    )

    await queue_case.queue.send([message])

    assert await queue_case.receive() == [message]


async def test_many_messages_of_every_priority_all_arrive(queue_case: QueueCase) -> None:
    priorities = list(Priority) * 15
    messages = [a_message(priority=priority) for priority in priorities]

    await queue_case.queue.send(messages)

    received = await queue_case.receive()
    assert sorted(received, key=lambda m: m.job_id) == sorted(messages, key=lambda m: m.job_id)


async def test_sending_nothing_is_no_error(queue_case: QueueCase) -> None:
    await queue_case.queue.send([])

    assert await queue_case.receive() == []


async def test_sends_add_up(queue_case: QueueCase) -> None:
    first, second = a_message(), a_message()

    await queue_case.queue.send([first])
    await queue_case.queue.send([second])

    assert {message.job_id for message in await queue_case.receive()} == {
        first.job_id,
        second.job_id,
    }


async def test_an_empty_queue_has_no_depth(queue_case: QueueCase) -> None:
    assert await queue_case.queue.depth("echo") == dict.fromkeys(Priority, 0)


async def test_depth_counts_what_waits_by_priority(queue_case: QueueCase, clock: FakeClock) -> None:
    waiting = {Priority.HIGH: 1, Priority.NORMAL: 12, Priority.LOW: 3}
    messages = [a_message(priority=p) for p, count in waiting.items() for _ in range(count)]
    await queue_case.queue.send(messages)
    assert await queue_case.queue.depth("echo") == waiting
    assert await queue_case.queue.items("echo") == waiting

    await queue_case.receive()
    clock.advance(60)

    assert await queue_case.queue.depth("echo") == dict.fromkeys(Priority, 0)
