"""SqsJobQueue: what each queue gets, partial failures, and a depth that is not asked for twice."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from synapse.adapters.aws.queue import SqsJobQueue
from synapse.adapters.codec import message_from_json
from synapse.domain.errors import Unavailable
from synapse.domain.job import Priority
from tests.aws import Aws, Call, intercepted
from tests.factories import a_message
from tests.fakes import FakeClock
from tests.integration.aws.faults import client_error, counted, failing


def received(cloud: Aws, url: str) -> list[str]:
    """The ids of the jobs in one receive of a queue."""
    answer = cloud.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    return [message_from_json(message["Body"]).job_id for message in answer.get("Messages", [])]


async def test_each_priority_has_its_queue(cloud: Aws) -> None:
    urls = cloud.queues()
    messages = {priority: a_message(priority=priority) for priority in Priority}

    await SqsJobQueue(cloud.sqs, urls).send(list(messages.values()))

    for priority, message in messages.items():
        assert received(cloud, urls[priority]) == [message.job_id]


async def test_what_is_gathered_is_in_one_queue_whatever_its_priority(cloud: Aws) -> None:
    urls = cloud.queues()
    queue = SqsJobQueue(cloud.sqs, urls)
    messages = [a_message(priority=priority) for priority in Priority]

    await queue.gather(messages)

    waiting = received(cloud, urls[Priority.LOW])
    assert sorted(waiting) == sorted(message.job_id for message in messages)
    arns = {
        priority: cloud.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        for priority, url in urls.items()
    }
    gathers = {
        priority: queue.gathers(got["Attributes"]["QueueArn"]) for priority, got in arns.items()
    }
    assert gathers == {priority: priority is Priority.LOW for priority in Priority}


async def test_what_is_kept_for_seconds_is_counted_and_not_there_yet(cloud: Aws) -> None:
    urls = cloud.queues()
    queue = SqsJobQueue(cloud.sqs, urls)

    await queue.gather([a_message(), a_message()], 4.2)

    assert received(cloud, urls[Priority.LOW]) == []
    assert (await queue.depth("echo"))[Priority.LOW] == 2
    answer = cloud.sqs.get_queue_attributes(
        QueueUrl=urls[Priority.LOW], AttributeNames=["ApproximateNumberOfMessagesDelayed"]
    )
    assert answer["Attributes"]["ApproximateNumberOfMessagesDelayed"] == "2"


@pytest.mark.parametrize(
    ("tenant", "group"),
    [
        ("acme", "acme"),
        ("acme/eu:1", "acme/eu:1"),
        ("ünlü şirket", sha256("ünlü şirket".encode()).hexdigest()),
        ("a" * 129, sha256(b"a" * 129).hexdigest()),
    ],
)
async def test_a_message_is_in_the_group_of_its_tenant(cloud: Aws, tenant: str, group: str) -> None:
    urls = cloud.queues()

    await SqsJobQueue(cloud.sqs, urls).send([a_message(tenant=tenant)])

    answer = cloud.sqs.receive_message(
        QueueUrl=urls[Priority.NORMAL], MessageSystemAttributeNames=["MessageGroupId"]
    )
    assert [each["Attributes"]["MessageGroupId"] for each in answer["Messages"]] == [group]


async def test_ten_messages_travel_in_one_call(cloud: Aws) -> None:
    queue = SqsJobQueue(cloud.sqs, cloud.queues())

    with counted(cloud.sqs) as calls:
        await queue.send([a_message() for _ in range(25)])

    assert calls == ["SendMessageBatch"] * 3


def partly_failing(times: int, *, sender_fault: bool, sent: list[int]) -> Any:
    """The first entry of the first calls fails."""

    def around(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        entries = arguments["Entries"]
        sent.append(len(entries))
        if len(sent) > times:
            return call(operation, arguments)
        if entries[1:]:
            call(operation, {**arguments, "Entries": entries[1:]})
        failed = {"Id": entries[0]["Id"], "SenderFault": sender_fault, "Code": "InternalError"}
        return {"Successful": [], "Failed": [failed]}

    return around


async def test_only_what_failed_is_sent_again(cloud: Aws) -> None:
    urls = cloud.queues()
    messages = [a_message() for _ in range(4)]
    sent: list[int] = []

    with intercepted(cloud.sqs, partly_failing(2, sender_fault=False, sent=sent)):
        await SqsJobQueue(cloud.sqs, urls).send(messages)

    assert sent == [4, 1, 1]
    waiting = received(cloud, urls[Priority.NORMAL])
    assert sorted(waiting) == sorted(message.job_id for message in messages)


async def test_what_fails_again_and_again_is_unavailable(cloud: Aws) -> None:
    queue = SqsJobQueue(cloud.sqs, cloud.queues())
    around = partly_failing(99, sender_fault=False, sent=[])

    with intercepted(cloud.sqs, around), pytest.raises(Unavailable, match="1 of 3"):
        await queue.send([a_message() for _ in range(3)])


async def test_what_sqs_will_never_take_is_not_sent_again(cloud: Aws) -> None:
    queue = SqsJobQueue(cloud.sqs, cloud.queues())
    sent: list[int] = []
    around = partly_failing(99, sender_fault=True, sent=sent)

    with intercepted(cloud.sqs, around), pytest.raises(Unavailable):
        await queue.send([a_message()])

    assert sent == [1]


async def test_a_breakdown_is_unavailable(cloud: Aws) -> None:
    queue = SqsJobQueue(cloud.sqs, cloud.queues())

    with failing(cloud.sqs, client_error("Throttled")), pytest.raises(Unavailable):
        await queue.send([a_message()])


async def test_the_depth_is_asked_for_once_in_two_seconds(cloud: Aws, clock: FakeClock) -> None:
    queue = SqsJobQueue(cloud.sqs, cloud.queues(), clock=clock)

    with counted(cloud.sqs) as calls:
        await queue.depth("echo")
        clock.advance(1.9)
        await queue.depth("smollm2")
        assert len(calls) == 3
        clock.advance(0.2)
        await queue.depth("echo")

    assert calls == ["GetQueueAttributes"] * 6


async def test_the_last_depth_serves_while_sqs_does_not_answer(
    cloud: Aws, clock: FakeClock
) -> None:
    urls = cloud.queues()
    queue = SqsJobQueue(cloud.sqs, urls, clock=clock)
    errors = [client_error("Throttled") for _ in urls]
    with failing(cloud.sqs, *errors), pytest.raises(Unavailable):
        await queue.depth("echo")
    await queue.send([a_message()])
    known = await queue.depth("echo")
    clock.advance(60)

    with failing(cloud.sqs, *errors):
        assert await queue.depth("echo") == known == {**known, Priority.NORMAL: 1}
