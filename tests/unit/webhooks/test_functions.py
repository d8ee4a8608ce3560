"""The functions that announce and deliver on AWS."""

from __future__ import annotations

import asyncio
import json
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from functions.announce import handler as announce
from functions.deliver import handler as deliver
from synapse.adapters.aws.items import attributes
from synapse.adapters.aws.webhooks import event_of_record
from synapse.adapters.telemetry.emf import EmfTelemetry
from synapse.application.webhooks import Announcer, Deliverer, Webhooks
from synapse.domain.delivery import Answer, Delivery, DeliveryState, delivery_of
from synapse.domain.errors import Unavailable
from synapse.domain.file_batch import FileBatchStatus
from synapse.domain.job import NOT_QUEUED, JobState
from synapse.domain.webhook import Endpoint, Event, EventType, Secret, event_of_job, secret_of
from tests.factories import NOW, a_file_batch, a_job
from tests.fake_file_batches import MemoryFileBatchStore
from tests.fake_webhooks import (
    ListedDeliveries,
    MemoryDeliveryStore,
    MemoryEndpointStore,
    ScriptedSender,
)
from tests.fakes import FakeClock
from tests.faults import failing_before
from tests.lambda_context import a_context

EVENTS = Path(__file__).resolve().parents[3] / "events"
RECORD = json.loads((EVENTS / "announce.job.json").read_text())["Records"][0]
CONTEXT = a_context("deliver")
EVERYTHING = frozenset(EventType)


@dataclass
class Delayed(ListedDeliveries):
    """A queue that also notes what is to come later."""

    later: dict[str, float] = field(default_factory=dict)

    async def send_later(self, delivery: Delivery, delay_s: float) -> None:
        self.later[delivery.id] = delay_s


class Target:
    """What the functions stand on, of fakes."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.endpoints = MemoryEndpointStore()
        self.sender = ScriptedSender()
        self.telemetry = EmfTelemetry("deliver")
        self.parts: Any = SimpleNamespace(
            deliveries=MemoryDeliveryStore(),
            delivery_queue=Delayed(),
            file_batches=MemoryFileBatchStore(),
        )
        hooks = Webhooks(
            self.endpoints, self.parts.deliveries, self.clock, lambda: "1", lambda n: bytes(n)
        )
        self.deliverer = Deliverer(hooks, self.sender, lambda: 0.5, self.telemetry)

    @property
    def announcer(self) -> Announcer:
        return Announcer(
            self.endpoints, self.parts.deliveries, self.parts.delivery_queue, self.clock
        )

    async def event_of(self, record: dict[str, Any]) -> Event | None:
        return await event_of_record(record, self.parts.file_batches)

    async def listen(self) -> None:
        secret = Secret(secret_of(bytes(32)))
        await self.endpoints.create(
            Endpoint("we_1", "default", "https://x.example/", EVERYTHING, (secret,), NOW)
        )


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Target:
    made = Target()
    for module in (announce, deliver):
        monkeypatch.setattr(module, "webhook_target", lambda: made)
        monkeypatch.setattr(module.tracer, "disabled", True)
    monkeypatch.setattr("functions.deliver.handler.time", SimpleNamespace(time=made.clock))
    return made


def a_record(number: str, job: str) -> dict[str, Any]:
    record = deepcopy(RECORD)
    record["dynamodb"]["SequenceNumber"] = number
    record["dynamodb"]["NewImage"]["id"] = {"S": job}
    return dict(record)


async def test_a_record_of_the_stream_is_the_end_of_a_job() -> None:
    event = await event_of_record(RECORD, MemoryFileBatchStore())

    assert event is not None
    assert (event.type, event.tenant) == (EventType.JOB_COMPLETED, "default")
    assert event.callback_url == "https://hooks.invalid/jobs"
    assert event.created_at == 1700000001.5


@pytest.mark.parametrize(("name", "value"), [("state", {"S": "RUNNING"}), ("announce", {"N": "0"})])
async def test_a_record_of_what_is_to_be_told_nobody_is_left_out(
    name: str, value: dict[str, str]
) -> None:
    record = deepcopy(RECORD)
    record["dynamodb"]["NewImage"][name] = value

    assert await event_of_record(record, MemoryFileBatchStore()) is None


async def test_a_job_that_was_refused_is_told_nobody() -> None:
    """Its caller was told to come again, and has no id."""
    record = deepcopy(RECORD)
    code = {"state": {"S": "FAILED"}, "failure_code": {"S": NOT_QUEUED.code}}
    record["dynamodb"]["NewImage"] |= code | {"failure_message": {"S": NOT_QUEUED.message}}

    assert await event_of_record(record, MemoryFileBatchStore()) is None


async def test_the_going_of_a_batchs_mark_is_its_end() -> None:
    batches, batch = MemoryFileBatchStore(), a_file_batch()
    await batches.create(batch)
    mark = attributes({"pk": "open-batches", "sk": batch.id, "tenant": batch.tenant})
    record = {"eventName": "REMOVE", "dynamodb": {"OldImage": mark}}
    assert await event_of_record(record, batches) is None

    await batches.save(replace(batch, status=FileBatchStatus.EXPIRED, revision=1))

    event = await event_of_record(record, batches)
    assert event is not None
    assert (event.type, event.subject) == (EventType.BATCH_EXPIRED, batch.id)
    gone = deepcopy(record)
    gone["dynamodb"]["OldImage"]["sk"] = {"S": "batch_none"}  # type: ignore[index]
    assert await event_of_record(gone, batches) is None


def test_each_record_is_announced_and_a_poisoned_one_holds_up_nobody(target: Target) -> None:
    poisoned = {"dynamodb": {"NewImage": {"id": {"S": "j2"}}, "SequenceNumber": "2"}}
    records = [a_record("1", "j1"), poisoned, {"dynamodb": {}}, a_record("3", "j3")]

    answer = announce.handler({"Records": records}, CONTEXT)

    assert answer == {"batchItemFailures": []}
    assert [each.subject for each in target.parts.delivery_queue.sent] == ["j1", "j3"]


def test_what_cannot_be_queued_now_is_given_again_from_there_on(target: Target) -> None:
    target.parts.delivery_queue = failing_before(
        target.parts.delivery_queue, send=[None, Unavailable("no queue")]
    )
    records = [a_record(str(n), f"j{n}") for n in (1, 2, 3)]

    answer = announce.handler({"Records": records}, CONTEXT)
    again = announce.handler({"Records": records[1:]}, CONTEXT)

    assert answer == {"batchItemFailures": [{"itemIdentifier": "2"}]}
    assert again == {"batchItemFailures": []}
    assert [each.subject for each in target.parts.delivery_queue.sent] == ["j1", "j2", "j3"]
    assert len(target.parts.deliveries.deliveries) == 3


async def owed(target: Target, job: str) -> Delivery:
    await target.listen()
    ended = a_job(id=job).closed(JobState.FAILED, None, NOW)
    made = delivery_of(event_of_job(ended), "we_1", "https://x.example/", "x.example", NOW)
    await target.parts.deliveries.add([made])
    return made


def message(delivery: Delivery, number: str = "m1") -> dict[str, str]:
    key = {"tenant": delivery.tenant, "subject": delivery.subject, "id": delivery.id}
    return {"messageId": number, "receiptHandle": f"r-{number}", "body": json.dumps(key)}


def state(target: Target, delivery: Delivery) -> tuple[DeliveryState, int]:
    found = target.parts.deliveries.deliveries[delivery.id]
    return found.state, found.attempts


@pytest.fixture
def due(target: Target) -> Delivery:
    return asyncio.run(owed(target, "j1"))


def test_what_is_taken_is_done_with_and_not_sent_again(
    target: Target, due: Delivery, capsys: pytest.CaptureFixture[str]
) -> None:
    first = deliver.handler({"Records": [message(due)]}, CONTEXT)
    again = deliver.handler({"Records": [message(due)]}, CONTEXT)

    assert first == again == {"batchItemFailures": []}
    assert state(target, due) == (DeliveryState.DELIVERED, 1)
    assert len(target.sender.posted) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    counted = [(each["outcome"], each["WebhookAttempts"]) for each in lines if "outcome" in each]
    assert counted == [("delivered", [1])]


def test_what_is_refused_is_sent_again_for_its_next_attempt(target: Target, due: Delivery) -> None:
    """Not hidden: what is hidden counts as in flight, of which a queue has only so many."""
    target.deliverer = replace(target.deliverer, sender=ScriptedSender(Answer(503)))

    answer = deliver.handler({"Records": [message(due)]}, CONTEXT)

    assert answer == {"batchItemFailures": []}
    assert target.parts.delivery_queue.later == {due.id: 5.0}
    assert state(target, due) == (DeliveryState.PENDING, 1)


def test_two_messages_of_a_delivery_make_one_attempt_and_are_one_from_then_on(
    target: Target, due: Delivery
) -> None:
    """One that dies once it has sent the next message has not deleted its own."""
    sender = ScriptedSender(*[Answer(503)] * 9)
    target.deliverer = replace(target.deliverer, sender=sender)
    deliver.handler({"Records": [message(due)]}, CONTEXT)
    target.clock.advance(5.0)
    target.parts.delivery_queue.later.clear()
    sends: list[str] = []
    send_later = target.parts.delivery_queue.send_later

    async def noted(delivery: Delivery, delay_s: float) -> None:
        sends.append(delivery.id)
        await send_later(delivery, delay_s)

    target.parts.delivery_queue.send_later = noted

    answer = deliver.handler({"Records": [message(due, "m1"), message(due, "m2")]}, CONTEXT)

    assert answer == {"batchItemFailures": []}
    assert len(sender.posted) == 2, "the first attempt, and one of those two"
    assert sends == [due.id]
    assert state(target, due) == (DeliveryState.PENDING, 2)


def test_an_attempt_that_was_taken_and_never_made_is_made_later(
    target: Target, due: Delivery
) -> None:
    target.deliverer = replace(target.deliverer, sender=ScriptedSender(Answer(503)))
    deliver.handler({"Records": [message(due)]}, CONTEXT)
    target.clock.advance(5.0)
    taken = target.parts.deliveries.deliveries[due.id]
    assert asyncio.run(target.parts.deliveries.take(taken, target.clock() + deliver.ATTEMPT_S))

    deliver.handler({"Records": [message(due)]}, CONTEXT)
    assert target.parts.delivery_queue.later == {due.id: deliver.ATTEMPT_S}
    target.clock.advance(deliver.ATTEMPT_S)
    deliver.handler({"Records": [message(due)]}, CONTEXT)

    assert state(target, due) == (DeliveryState.DELIVERED, 2)


def test_what_cannot_be_sent_again_is_kept(target: Target, due: Delivery) -> None:
    target.deliverer = replace(target.deliverer, sender=ScriptedSender(Answer(503)))
    target.parts.delivery_queue = failing_before(
        target.parts.delivery_queue, send_later=[Unavailable("no queue")]
    )

    answer = deliver.handler({"Records": [message(due)]}, CONTEXT)

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert state(target, due) == (DeliveryState.PENDING, 1)


def test_a_message_that_comes_too_early_is_sent_again_and_nothing_is_posted(
    target: Target, due: Delivery
) -> None:
    target.clock.advance(-30)

    answer = deliver.handler({"Records": [message(due)]}, CONTEXT)

    assert answer == {"batchItemFailures": []}
    assert target.parts.delivery_queue.later == {due.id: 30.0}
    assert target.sender.posted == []


def test_what_is_given_up_is_done_with(target: Target, due: Delivery) -> None:
    target.deliverer = replace(target.deliverer, sender=ScriptedSender(Answer(410)))

    answer = deliver.handler({"Records": [message(due)]}, CONTEXT)

    assert answer == {"batchItemFailures": []}
    assert state(target, due) == (DeliveryState.GIVEN_UP, 1)


def test_a_message_that_cannot_be_read_is_parked_and_spares_the_others(
    target: Target, due: Delivery
) -> None:
    poison = {"messageId": "m0", "receiptHandle": "r", "body": "no JSON"}
    unknown = message(replace(due, id="evt_none.we_1"), "m2")

    answer = deliver.handler({"Records": [poison, message(due), unknown]}, CONTEXT)

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}]}
    assert state(target, due) == (DeliveryState.DELIVERED, 1)


def test_an_outcome_that_cannot_be_written_is_tried_again(target: Target, due: Delivery) -> None:
    hooks = target.deliverer.webhooks
    broken = failing_before(hooks.deliveries, save=[Unavailable("no table")])
    target.deliverer = replace(target.deliverer, webhooks=replace(hooks, deliveries=broken))

    first = deliver.handler({"Records": [message(due)]}, CONTEXT)
    again = deliver.handler({"Records": [message(due)]}, CONTEXT)

    assert first == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert again == {"batchItemFailures": []}
    assert len(target.sender.posted) == 2


def test_a_fault_of_ours_spares_the_messages_beside_it(target: Target, due: Delivery) -> None:
    target.parts.deliveries = failing_before(
        target.parts.deliveries, get=[RuntimeError("a fault of ours")]
    )

    answer = deliver.handler({"Records": [message(due, "m1"), message(due, "m2")]}, CONTEXT)

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert len(target.sender.posted) == 1
