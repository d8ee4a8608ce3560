"""What every store of webhooks does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from synapse.adapters.aws.webhooks import (
    DynamoDeliveryStore,
    DynamoEndpointStore,
    SqsDeliveryQueue,
    key_of_message,
)
from synapse.adapters.local.access_database import AccessDatabase
from synapse.adapters.local.database import Database
from synapse.adapters.local.webhooks import SqliteDeliveryStore, SqliteEndpointStore
from synapse.domain.delivery import Answer, Delivery, DeliveryState, delivery_of
from synapse.domain.job import JobState
from synapse.domain.webhook import Endpoint, EventType, Secret, event_of_job, secret_of
from synapse.ports.webhooks import DeliveryStore, EndpointStore
from tests.aws import Call, aws, intercepted
from tests.factories import NOW, a_job
from tests.fake_webhooks import MemoryDeliveryStore, MemoryEndpointStore
from tests.fakes import FakeClock

KINDS = ["memory", "sqlite", "dynamodb"]
SECRET = secret_of(bytes(range(32)))


@pytest.fixture(params=KINDS)
async def endpoints(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EndpointStore]:
    if request.param == "memory":
        yield MemoryEndpointStore()
    elif request.param == "sqlite":
        database = AccessDatabase.open(tmp_path / "access.db")
        yield SqliteEndpointStore(database)
        await database.close()
    else:
        with aws() as cloud:
            yield DynamoEndpointStore(cloud.dynamodb, cloud.webhooks_table)


@pytest.fixture(params=KINDS)
async def deliveries(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[DeliveryStore]:
    if request.param == "memory":
        yield MemoryDeliveryStore()
    elif request.param == "sqlite":
        database = Database.open(tmp_path / "jobs.db")
        yield SqliteDeliveryStore(database, clock)
        await database.close()
    else:
        with aws() as cloud:
            yield DynamoDeliveryStore(cloud.dynamodb, cloud.webhooks_table)


def an_endpoint(name: str = "we_1", tenant: str = "t") -> Endpoint:
    events = frozenset({EventType.JOB_COMPLETED, EventType.BATCH_FAILED})
    return Endpoint(name, tenant, "https://x.example/y", events, (Secret(SECRET),), NOW)


def a_delivery(endpoint: str = "we_1", job: str = "j1", tenant: str = "t") -> Delivery:
    ended = a_job(id=job, tenant=tenant).closed(JobState.FAILED, None, NOW)
    return delivery_of(event_of_job(ended), endpoint, "https://x.example/y", "x.example", NOW)


async def test_an_endpoint_is_found_as_it_was_registered(endpoints: EndpointStore) -> None:
    rotated = an_endpoint().rotated("whsec_b", NOW)

    assert await endpoints.create(rotated)

    assert await endpoints.get("t", "we_1") == rotated
    assert await endpoints.of("t") == [rotated]


async def test_an_id_is_given_once_a_tenant(endpoints: EndpointStore) -> None:
    assert await endpoints.create(an_endpoint())
    other = replace(an_endpoint(), url="https://other.example/")

    assert not await endpoints.create(other)
    assert await endpoints.create(replace(other, tenant="u"))

    assert await endpoints.get("t", "we_1") == an_endpoint()


async def test_endpoints_are_listed_by_their_ids_and_only_to_their_tenant(
    endpoints: EndpointStore,
) -> None:
    for name, tenant in (("b", "t"), ("a", "t"), ("c", "u")):
        await endpoints.create(an_endpoint(name, tenant))

    assert [each.id for each in await endpoints.of("t")] == ["a", "b"]
    assert await endpoints.get("u", "a") is None
    assert await endpoints.of("nobody") == []


async def test_of_two_changes_to_the_same_endpoint_one_is_refused(endpoints: EndpointStore) -> None:
    await endpoints.create(an_endpoint())
    first, second = (an_endpoint().rotated(f"whsec_{each}", NOW) for each in "ab")

    assert await endpoints.replace(first)
    assert not await endpoints.replace(second)

    assert await endpoints.get("t", "we_1") == first
    assert not await endpoints.replace(an_endpoint("none").rotated("whsec_c", NOW))


async def test_an_endpoint_is_deleted_by_its_tenant_once(endpoints: EndpointStore) -> None:
    await endpoints.create(an_endpoint())

    assert not await endpoints.delete("u", "we_1")
    assert await endpoints.delete("t", "we_1")
    assert not await endpoints.delete("t", "we_1")

    assert await endpoints.get("t", "we_1") is None


async def test_deliveries_that_are_added_twice_are_there_once(deliveries: DeliveryStore) -> None:
    both = [a_delivery("we_2"), a_delivery("we_1")]
    later = [replace(each, created_at=NOW + 9, due_at=NOW + 9) for each in both]

    assert await deliveries.add(both) == both[::-1]
    assert await deliveries.add(later) == both[::-1]

    assert await deliveries.of("t", "j1") == both[::-1]


async def test_what_has_ended_is_not_to_be_made_again(deliveries: DeliveryStore) -> None:
    first, other = a_delivery("we_1"), a_delivery("we_2")
    await deliveries.add([first, other])
    await deliveries.save(first.after(Answer(204), NOW, 0.5))

    assert await deliveries.add([first, other]) == [other]


async def test_what_came_of_an_attempt_is_kept(deliveries: DeliveryStore) -> None:
    await deliveries.add([a_delivery()])
    tried = a_delivery().after(Answer(503, "", 7.0), NOW + 1, 0.5)

    assert await deliveries.save(tried)

    assert await deliveries.get("t", "j1", tried.id) == tried
    again = tried.after(Answer(None, "no connection"), NOW + 9, 0.5)
    assert await deliveries.save(again)
    assert await deliveries.of("t", "j1") == [again]


async def test_an_outdated_outcome_and_one_after_the_end_are_refused(
    deliveries: DeliveryStore,
) -> None:
    await deliveries.add([a_delivery()])
    once = a_delivery().after(Answer(500), NOW, 0.5)
    twice = once.after(Answer(500), NOW, 0.5)
    done = twice.after(Answer(200), NOW, 0.5)

    assert await deliveries.save(twice)
    assert not await deliveries.save(once)
    assert await deliveries.save(done)
    assert not await deliveries.save(done.given_up("late"))

    found = await deliveries.get("t", "j1", done.id)
    assert found is not None and found.state is DeliveryState.DELIVERED


async def test_a_delivery_is_given_up_without_another_attempt(deliveries: DeliveryStore) -> None:
    await deliveries.add([a_delivery()])
    once = a_delivery().after(Answer(500), NOW, 0.5)
    await deliveries.save(once)

    assert await deliveries.save(once.given_up("the endpoint was deleted"))

    (found,) = await deliveries.of("t", "j1")
    assert (found.state, found.attempts, found.due_at) == (DeliveryState.GIVEN_UP, 1, None)
    assert found.last_error == "the endpoint was deleted"


async def test_deliveries_are_their_tenants(deliveries: DeliveryStore) -> None:
    mine = a_delivery()
    await deliveries.add([mine])

    assert await deliveries.of("u", "j1") == []
    assert await deliveries.get("u", "j1", mine.id) is None
    assert await deliveries.get("t", "j2", mine.id) is None
    assert not await deliveries.save(a_delivery(job="j2").after(Answer(200), NOW, 0.5))


async def test_sqs_carries_the_names_of_deliveries() -> None:
    with aws() as cloud:
        url = cloud.sqs.create_queue(QueueName="webhooks")["QueueUrl"]
        queue = SqsDeliveryQueue(cloud.sqs, url)
        sent = [a_delivery(job=f"j{n}") for n in range(13)]

        await queue.send(sent)

        got = []
        while found := cloud.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            got += found
        keys = sorted(key_of_message(each["Body"]) for each in got)
        assert keys == sorted((d.tenant, d.subject, d.id) for d in sent)


@pytest.mark.parametrize(("delay_s", "delayed_s"), [(-1.0, 0), (4.2, 5), (32_400.0, 900)])
async def test_sqs_carries_a_name_later_but_no_later_than_it_can(
    delay_s: float, delayed_s: int
) -> None:
    sent: list[dict[str, Any]] = []

    def around(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        sent.append(arguments)
        return call(operation, arguments)

    with aws() as cloud:
        url = cloud.sqs.create_queue(QueueName="webhooks")["QueueUrl"]
        with intercepted(cloud.sqs, around):
            await SqsDeliveryQueue(cloud.sqs, url).send_later(a_delivery(), delay_s)

    (message,) = sent
    assert (message["DelaySeconds"], message["MessageGroupId"]) == (delayed_s, "t")
    assert key_of_message(message["MessageBody"])[0] == "t"


async def test_a_message_is_in_the_group_of_its_tenant_whatever_hosts_it_names() -> None:
    with aws() as cloud:
        url = cloud.sqs.create_queue(QueueName="webhooks")["QueueUrl"]
        hosts = [replace(a_delivery(job=f"j{n}"), host=f"h{n}.example") for n in range(3)]
        strange = a_delivery(tenant="ünlü şirket")

        await SqsDeliveryQueue(cloud.sqs, url).send([*hosts, strange])

        got = cloud.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["MessageGroupId"]
        )["Messages"]
        groups = Counter(each["Attributes"]["MessageGroupId"] for each in got)
        assert groups == {"t": 3, sha256(strange.tenant.encode()).hexdigest(): 1}


@pytest.mark.parametrize("body", ["", "{}", "[]", '"x"', '{"tenant": "t", "subject": "j"}'])
def test_a_message_of_others_is_no_key(body: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        key_of_message(body)


async def test_an_attempt_is_taken_once_and_again_when_that_is_over(clock: FakeClock) -> None:
    with aws() as cloud:
        store = DynamoDeliveryStore(cloud.dynamodb, cloud.webhooks_table)
        made = replace(a_delivery(), attempts=1, due_at=NOW + 0.1)
        await store.add([made])

        took = await asyncio.gather(*(store.take(made, NOW + 60 + n) for n in range(5)))
        taken = await store.get(made.tenant, made.subject, made.id)
        assert taken is not None
        assert sorted(took) == [False] * 4 + [True]
        assert taken == replace(made, due_at=NOW + 60 + took.index(True))
        assert await store.take(taken, NOW + 90)
        # What came of an attempt is written whoever took it: it was made.
        assert await store.save(
            replace(made, attempts=2, due_at=None, state=DeliveryState.GIVEN_UP)
        )
        assert not await store.take(replace(taken, due_at=NOW + 90), NOW + 120)


async def test_an_attempt_is_taken_though_the_answer_to_that_was_lost(clock: FakeClock) -> None:
    with aws() as cloud:
        store = DynamoDeliveryStore(cloud.dynamodb, cloud.webhooks_table)
        made = replace(a_delivery(), attempts=1, due_at=NOW)
        await store.add([made])

        def twice(make_call: Call, operation: str, arguments: dict[str, Any]) -> Any:
            if operation == "PutItem":
                make_call(operation, arguments)
            return make_call(operation, arguments)

        with intercepted(cloud.dynamodb, twice):
            assert await store.take(made, NOW + 60)


async def test_an_attempt_at_a_delivery_of_before_is_taken_once_as_well(clock: FakeClock) -> None:
    with aws() as cloud:
        store = DynamoDeliveryStore(cloud.dynamodb, cloud.webhooks_table)
        made = replace(a_delivery(), attempts=1, due_at=NOW)
        await store.add([made])
        cloud.dynamodb.update_item(
            TableName=cloud.webhooks_table,
            Key={"pk": {"S": f"deliveries#{made.tenant}#{made.subject}"}, "sk": {"S": made.id}},
            UpdateExpression="REMOVE due_at",
        )

        assert [await store.take(made, NOW + 60 + n) for n in range(2)] == [True, False]
