from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass, field

import pytest
from openai import OpenAI

from synapse.application import webhooks
from synapse.application.webhooks import Announcer, Audience, Deliverer, Webhooks
from synapse.domain.delivery import Answer, Delivery, DeliveryState
from synapse.domain.errors import InvalidRequest, Unavailable, WebhookUnknown
from synapse.domain.job import Job, JobState
from synapse.domain.webhook import CALLBACKS, MAX_ENDPOINTS, EventType, event_of_job
from synapse.domain.webhook_url import Allowed
from tests.factories import NOW, a_job
from tests.fake_webhooks import (
    ListedDeliveries,
    MemoryDeliveryStore,
    MemoryEndpointStore,
    ScriptedSender,
)
from tests.fakes import FakeClock, RecordingTelemetry
from tests.faults import failing_before

JOBS = frozenset({EventType.JOB_COMPLETED, EventType.JOB_FAILED})
BATCHES = frozenset({EventType.BATCH_COMPLETED})


@dataclass
class World:
    """The use cases over fakes."""

    clock: FakeClock = field(default_factory=FakeClock)
    endpoints: MemoryEndpointStore = field(default_factory=MemoryEndpointStore)
    deliveries: MemoryDeliveryStore = field(default_factory=MemoryDeliveryStore)
    queue: ListedDeliveries = field(default_factory=ListedDeliveries)
    sender: ScriptedSender = field(default_factory=ScriptedSender)

    def __post_init__(self) -> None:
        ids, seeds = itertools.count(1), itertools.count(1)
        self.hooks = Webhooks(
            self.endpoints,
            self.deliveries,
            self.clock,
            lambda: f"{next(ids):04d}",
            lambda size: bytes([next(seeds)]) * size,
        )
        self.announcer = Announcer(self.endpoints, self.deliveries, self.queue, self.clock)
        self.deliverer = Deliverer(self.hooks, self.sender, lambda: 0.5, RecordingTelemetry())

    async def announced(self, job: Job) -> list[Delivery]:
        """What is queued when the job is announced."""
        self.queue.sent.clear()
        await self.announcer.announce([event_of_job(job)])
        return list(self.queue.sent)


@pytest.fixture
def world() -> World:
    return World()


def a_completed_job(**changes: object) -> Job:
    return a_job(id="j1", tenant="t", **changes).closed(JobState.COMPLETED, None, NOW)


async def test_a_webhook_is_registered_with_a_secret_of_its_own(world: World) -> None:
    first = await world.hooks.register("t", "https://a.example/x", JOBS)
    second = await world.hooks.register("t", "https://b.example/x", BATCHES)

    assert await world.hooks.of("t") == [first, second]
    assert first.secrets[0].text.startswith("whsec_")
    assert first.secrets != second.secrets
    assert await world.hooks.of("u") == []


async def test_a_webhook_to_nowhere_public_is_refused(world: World) -> None:
    with pytest.raises(InvalidRequest, match=r"^url: must be a public address") as refused:
        await world.hooks.register("t", "https://169.254.169.254/", JOBS)

    assert refused.value.param == "url"
    assert await world.hooks.of("t") == []


async def test_a_tenant_has_so_many_webhooks_and_no_more(world: World) -> None:
    for n in range(MAX_ENDPOINTS):
        await world.hooks.register("t", f"https://x{n}.example/", JOBS)

    with pytest.raises(InvalidRequest, match="already"):
        await world.hooks.register("t", "https://y.example/", JOBS)
    await world.hooks.register("u", "https://y.example/", JOBS)
    assert len(await world.hooks.of("u")) == 1


async def test_nobody_touches_anothers_webhook(world: World) -> None:
    made = await world.hooks.register("t", "https://a.example/x", JOBS)

    with pytest.raises(WebhookUnknown):
        await world.hooks.delete("u", made.id)
    with pytest.raises(WebhookUnknown):
        await world.hooks.rotate("u", made.id)
    with pytest.raises(WebhookUnknown):
        await world.hooks.delete("t", CALLBACKS)

    assert await world.hooks.of("t") == [made]


async def test_the_secret_of_callbacks_is_made_when_first_needed_and_kept(world: World) -> None:
    first = await world.hooks.callbacks("t")
    again = await world.hooks.callbacks("t")
    rotated = await world.hooks.rotate("t", CALLBACKS)

    assert first == again
    assert rotated.secrets[0] != first.secrets[0]
    assert [s.text for s in rotated.secrets[1:]] == [first.secrets[0].text]
    assert await world.hooks.of("t") == []


async def test_an_end_is_told_to_those_that_want_it_and_to_the_jobs_own_url(world: World) -> None:
    wants = await world.hooks.register("t", "https://a.example/x", JOBS)
    await world.hooks.register("t", "https://b.example/x", BATCHES)
    await world.hooks.register("u", "https://c.example/x", JOBS)

    sent = await world.announced(a_completed_job(callback_url="https://me.example/done"))

    assert {(each.endpoint_id, each.url) for each in sent} == {
        (wants.id, "https://a.example/x"),
        (CALLBACKS, "https://me.example/done"),
    }
    assert {each.host for each in sent} == {"a.example", "me.example"}


async def test_announcing_again_queues_what_is_left_and_makes_nothing_twice(world: World) -> None:
    await world.hooks.register("t", "https://a.example/x", JOBS)
    job = a_completed_job(callback_url="https://me.example/done")
    first, other = await world.announced(job)

    assert await world.announced(job) == [first, other]
    await world.deliverer.attempt(first)

    assert await world.announced(job) == [other]
    assert len(world.deliveries.deliveries) == 2


async def test_a_job_that_nobody_asks_about_is_told_nobody(world: World) -> None:
    assert await world.announced(a_completed_job()) == []


async def test_what_is_not_queued_can_be_announced_again(world: World) -> None:
    await world.hooks.register("t", "https://a.example/x", JOBS)
    broken = Announcer(
        world.endpoints,
        world.deliveries,
        failing_before(world.queue, send=[Unavailable("no queue")]),
        world.clock,
    )

    with pytest.raises(Unavailable):
        await broken.announce([event_of_job(a_completed_job())])

    assert len(await world.announced(a_completed_job())) == 1


async def test_a_url_that_is_allowed_no_more_is_given_up_and_seen_to_be(world: World) -> None:
    job = a_completed_job(callback_url="http://127.0.0.1:9000/")

    assert await world.announced(job) == []

    (given_up,) = await world.hooks.sent("t", "j1")
    assert given_up.state is DeliveryState.GIVEN_UP
    assert "https" in given_up.last_error


async def test_a_delivery_is_posted_and_openais_client_accepts_it(world: World) -> None:
    world.clock.now = time.time()
    made = await world.hooks.register("t", "https://a.example/x", JOBS)
    (delivery,) = await world.announced(a_completed_job())

    after = await world.deliverer.attempt(delivery)

    (posted,) = world.sender.posted
    secret = made.secrets[0].text
    event = OpenAI(api_key="x").webhooks.unwrap(posted.body, dict(posted.headers), secret=secret)
    assert (event.id, event.type) == (delivery.event_id, "job.completed")
    assert posted.url.text == "https://a.example/x"
    assert after.state is DeliveryState.DELIVERED
    assert await world.hooks.sent("t", "j1") == [after]


async def test_a_failed_attempt_is_due_again_and_what_is_delivered_never(world: World) -> None:
    world.sender = ScriptedSender(Answer(500), Answer(200))
    world.deliverer = Deliverer(world.hooks, world.sender, lambda: 0.5, RecordingTelemetry())
    await world.hooks.register("t", "https://a.example/x", JOBS)
    (delivery,) = await world.announced(a_completed_job())

    once = await world.deliverer.attempt(delivery)
    twice = await world.deliverer.attempt(once)
    thrice = await world.deliverer.attempt(twice)

    assert once.due_at == world.clock.now + 5.0
    assert (twice.state, thrice) == (DeliveryState.DELIVERED, twice)
    assert len(world.sender.posted) == 2


async def test_an_attempt_that_fails_for_our_own_fault_counts(world: World) -> None:
    broken = failing_before(world.sender, post=[RuntimeError("a fault of ours")])
    world.deliverer = Deliverer(world.hooks, broken, lambda: 0.5, RecordingTelemetry())
    await world.hooks.register("t", "https://a.example/x", JOBS)
    (delivery,) = await world.announced(a_completed_job())

    after = await world.deliverer.attempt(delivery)

    assert (after.attempts, after.last_error) == (1, "it could not be sent")
    assert after.due_at == world.clock.now + 5.0


async def test_an_attempt_that_was_not_begun_counts_for_nothing(world: World) -> None:
    busy = failing_before(world.sender, post=[Unavailable("no means")])
    world.deliverer = Deliverer(world.hooks, busy, lambda: 0.5, RecordingTelemetry())
    await world.hooks.register("t", "https://a.example/x", JOBS)
    (delivery,) = await world.announced(a_completed_job())

    with pytest.raises(Unavailable):
        await world.deliverer.attempt(delivery)

    assert await world.deliveries.of("t", "j1") == [delivery]
    assert (await world.deliverer.attempt(delivery)).attempts == 1


async def test_what_was_for_a_deleted_webhook_is_given_up_unsent(world: World) -> None:
    made = await world.hooks.register("t", "https://a.example/x", JOBS)
    (delivery,) = await world.announced(a_completed_job())
    await world.hooks.delete("t", made.id)

    after = await world.deliverer.attempt(delivery)

    assert (after.state, after.last_error) == (DeliveryState.GIVEN_UP, "the endpoint was deleted")
    assert world.sender.posted == []


async def test_giving_up_is_logged_without_the_url_and_the_secret(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.deliverer = Deliverer(
        world.hooks, ScriptedSender(Answer(410)), lambda: 0.5, RecordingTelemetry()
    )
    made = await world.hooks.register("t", "https://a.example/x?token=hush", JOBS)
    (delivery,) = await world.announced(a_completed_job())

    with caplog.at_level(logging.DEBUG):
        after = await world.deliverer.attempt(delivery)

    (record,) = caplog.records
    assert after.state is DeliveryState.GIVEN_UP
    assert record.__dict__["host"] == "a.example" and record.__dict__["last_status"] == 410
    assert "hush" not in str(record.__dict__)
    assert made.secrets[0].text not in str(record.__dict__)


async def test_an_end_is_marked_to_be_told_if_somebody_will_want_it(world: World) -> None:
    audience = Audience(world.endpoints, world.clock)

    assert await audience.wants("t", "https://me.example/x")
    assert not await audience.wants("t", None)
    await world.hooks.register("t", "https://a.example/x", BATCHES)
    assert not await audience.wants("t", None)
    await world.hooks.register("t", "https://a.example/x", JOBS)
    assert await audience.wants("t", None)
    assert not await audience.wants("u", None)


async def test_a_callback_to_nowhere_public_is_refused_by_its_name(world: World) -> None:
    audience = Audience(world.endpoints, world.clock, Allowed.of("127.0.0.1:9000"))

    assert await audience.wants("t", "http://127.0.0.1:9000/x")
    with pytest.raises(InvalidRequest, match=r"^callback_url: ") as refused:
        await audience.wants("t", "http://127.0.0.1:9001/x")
    assert refused.value.param == "callback_url"


async def test_what_is_known_of_a_tenant_may_be_seconds_old_and_no_older(world: World) -> None:
    audience = Audience(world.endpoints, world.clock, fresh_s=10.0)
    assert not await audience.wants("t", None)
    await world.hooks.register("t", "https://a.example/x", JOBS)

    world.clock.advance(9.9)
    assert not await audience.wants("t", None)
    world.clock.advance(0.2)
    assert await audience.wants("t", None)


async def test_of_many_tenants_not_all_are_remembered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MAX_KNOWN", 3)
    audience = Audience(world.endpoints, world.clock, fresh_s=10.0)
    for number in range(10):
        assert not await audience.wants(f"t{number}", None)
        assert len(audience._known) <= 3


async def test_if_it_cannot_be_told_who_listens_the_end_is_told(world: World) -> None:
    broken = failing_before(world.endpoints, of=[Unavailable("no table")])

    assert await Audience(broken, world.clock).wants("t", None)
