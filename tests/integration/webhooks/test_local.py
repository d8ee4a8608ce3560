"""Webhooks of one machine: what is told of survives a crash, and nobody holds up the others."""

from __future__ import annotations

import asyncio
import contextlib
import random
import stat
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from synapse.adapters.local import schema
from synapse.adapters.local.access_database import AccessDatabase
from synapse.adapters.local.database import Database
from synapse.adapters.local.file_batch_store import SqliteFileBatchStore
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.adapters.local.webhooks import (
    SqliteDeliveryStore,
    SqliteEndpointStore,
    SqliteOutbox,
)
from synapse.adapters.web.sender import HttpSender
from synapse.application.webhooks import Announcer, Deliverer, Webhooks
from synapse.domain.delivery import RETENTION_S, Answer, Delivery, DeliveryState, delivery_of
from synapse.domain.delivery_room import PER_TENANT, Room
from synapse.domain.file_batch import FileBatchStatus
from synapse.domain.job import NOT_QUEUED, Job, JobState
from synapse.domain.sweep import SweepPolicy
from synapse.domain.webhook import Endpoint, EventType, Secret, event_of_job, secret_of
from synapse.domain.webhook_url import Allowed, WebhookUrl
from synapse.ids import new_id
from synapse_server.webhook_loop import LocalDeliveryQueue, WebhookLoop
from tests.factories import a_file_batch, a_job, a_lease
from tests.fakes import FakeClock, RecordingTelemetry
from tests.integration.webhooks.receiver import receiver, status
from tests.patience import PATIENCE_S, until

DEAD_AFTER_S = 3600.0


@dataclass
class Machine:
    """The records of one machine."""

    database: Database
    access: AccessDatabase
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        self.jobs = SqliteJobStore(self.database, self.clock)
        self.batches = SqliteFileBatchStore(self.database, self.clock)
        self.outbox = SqliteOutbox(self.database)
        self.deliveries = SqliteDeliveryStore(self.database, self.clock)
        self.endpoints = SqliteEndpointStore(self.access)

    def loop(self, allowed: Allowed) -> WebhookLoop:
        """The loop of a server over these records."""
        queue = LocalDeliveryQueue()
        hooks = Webhooks(
            self.endpoints, self.deliveries, self.clock, new_id, random.randbytes, allowed
        )
        return WebhookLoop(
            self.outbox,
            self.deliveries,
            Announcer(self.endpoints, self.deliveries, queue, self.clock, allowed),
            Deliverer(
                hooks,
                HttpSender(self.clock, timeout_s=DEAD_AFTER_S),
                lambda: 0.5,
                RecordingTelemetry(),
            ),
            queue,
        )


@asynccontextmanager
async def machine(folder: Path, clock: Callable[[], float]) -> AsyncIterator[Machine]:
    database = Database.open(folder / "jobs.db")
    access = AccessDatabase.open(folder / "access.db")
    opened = Machine(database, access, clock)
    yield opened
    await opened.jobs.aclose()
    await access.close()
    await database.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def opened(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Machine]:
    async with machine(tmp_path, clock) as it:
        yield it


@asynccontextmanager
async def running(loop: WebhookLoop) -> AsyncIterator[None]:
    task = asyncio.create_task(loop.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def tried(here: Machine, job: Job, times: int) -> Delivery:
    """The one delivery for the job, once it was tried so often and that is written down."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            seen = await here.deliveries.of("default", job.id)
            if seen and seen[0].attempts == times:
                [delivery] = seen
                return delivery
            await asyncio.sleep(0.02)


def an_announced_job(**changes: object) -> Job:
    now = time.time()
    return a_job(**{"announce": True, "created_at": now, **changes})


async def test_an_end_is_untold_from_the_moment_it_is_written_until_it_is_told(
    opened: Machine, clock: FakeClock
) -> None:
    told, silent = a_job(announce=True, callback_url="https://x.example/"), a_job()
    await opened.jobs.create_many([told, silent])
    assert await opened.outbox.untold(10) == []

    for job in (told, silent):
        await opened.jobs.close(job.id, JobState.CANCELLED, None, clock())

    (event,) = await opened.outbox.untold(10)
    assert (event.subject, event.type) == (told.id, EventType.JOB_CANCELLED)
    assert event.callback_url == "https://x.example/"
    await opened.outbox.told([event])
    assert await opened.outbox.untold(10) == []


async def test_a_job_that_was_refused_is_told_nobody(opened: Machine, clock: FakeClock) -> None:
    """Its caller was told to come again, and has no id."""
    refused = a_job(announce=True, callback_url="https://x.example/")
    await opened.jobs.create(refused)

    await opened.jobs.close(refused.id, JobState.FAILED, NOT_QUEUED, clock())

    assert await opened.outbox.untold(10) == []


async def test_what_ends_because_the_process_died_is_told_too(
    tmp_path: Path, clock: FakeClock
) -> None:
    job = a_job(announce=True, losses=2)
    async with machine(tmp_path, clock) as before:
        await before.jobs.create(job)
        await before.jobs.claim([job.id], a_lease(), clock())

    async with machine(tmp_path, clock) as after:
        recovered = await after.jobs.recover(clock(), SweepPolicy())
        (event,) = await after.outbox.untold(10)

    assert recovered.failed == 1
    assert (event.subject, event.type) == (job.id, EventType.JOB_FAILED)


async def test_the_end_of_a_file_batch_is_untold_until_it_is_told(opened: Machine) -> None:
    batch = a_file_batch()
    await opened.batches.create(batch)
    assert await opened.outbox.untold(10) == []

    await opened.batches.save(replace(batch, status=FileBatchStatus.FAILED, revision=1))

    (event,) = await opened.outbox.untold(10)
    assert (event.subject, event.type) == (batch.id, EventType.BATCH_FAILED)
    await opened.outbox.told([event])
    assert await opened.outbox.untold(10) == []


async def test_batches_that_ended_before_there_were_webhooks_are_told_nobody(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, going = replace(a_file_batch(), status=FileBatchStatus.COMPLETED), a_file_batch()
    with monkeypatch.context() as earlier:
        before_webhooks = schema.MIGRATIONS[: schema.MIGRATIONS.index(schema._WEBHOOKS)]
        earlier.setattr(schema, "MIGRATIONS", before_webhooks)
        async with machine(tmp_path, clock) as old:
            await old.batches.create(ended)
            await old.batches.create(going)

    async with machine(tmp_path, clock) as new:
        assert await new.outbox.untold(10) == []
        await new.batches.save(replace(going, status=FileBatchStatus.FAILED, revision=1))
        assert [event.subject for event in await new.outbox.untold(10)] == [going.id]


def test_the_file_with_the_secrets_is_its_owners_alone(tmp_path: Path) -> None:
    async def make() -> None:
        access = AccessDatabase.open(tmp_path / "access.db")
        hooks = SqliteEndpointStore(access)
        await Webhooks(
            hooks, SqliteDeliveryStore.__new__(SqliteDeliveryStore), FakeClock(), new_id, bytes
        ).register("t", "https://x.example/", frozenset(EventType))
        for path in tmp_path.glob("access.db*"):
            if not path.name.endswith(".lock"):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        await access.close()

    asyncio.run(make())


def waiting(host: str, number: int, due_at: float, tenant: str = "default") -> Delivery:
    job = a_job(id=f"{tenant}-{host}-{number:03d}", tenant=tenant)
    event = event_of_job(job.closed(JobState.FAILED, None, due_at))
    return replace(delivery_of(event, "we_1", f"https://{host}/", host, due_at), due_at=due_at)


async def test_each_host_gets_its_share_however_much_waits_for_another(
    opened: Machine, clock: FakeClock
) -> None:
    many = [waiting("a.example", n, clock() - 100 + n / 1000) for n in range(500)]
    others = [waiting(f"{name}.example", 1, clock() - 1) for name in "bcd"]
    later = waiting("e.example", 1, clock() + 1)
    await opened.deliveries.add([*many, *others, later])

    due = await opened.deliveries.due(Room([], set()))
    assert due == [*many[:4], *others]

    more = await opened.deliveries.due(Room([many[0], many[1], others[0]], set()))
    assert more == [many[2], many[3], *others[1:]]

    failing = {("default", "a.example")}
    assert await opened.deliveries.due(Room([], failing)) == [many[0], *others]
    clock.advance(2)
    assert await opened.deliveries.due(Room([many[0]], failing)) == [*others, later]


async def test_tenants_take_turns_however_many_hosts_one_of_them_names(
    opened: Machine, clock: FakeClock
) -> None:
    many = [waiting(f"h{n:03d}.example", n, clock() - 9 + n / 1000, "a") for n in range(500)]
    late = [waiting("z.example", n, clock() - 1 + n / 1000, "b") for n in range(5)]
    shared = [waiting("h000.example", n, clock() - 0.9 + n / 1000, "c") for n in range(2)]
    await opened.deliveries.add([*many, *late, *shared])

    due = await opened.deliveries.due(Room([], {("a", "h000.example")}))

    assert due[:6] == [many[0], late[0], shared[0], many[1], late[1], shared[1]]
    assert due[6:10] == [many[2], late[2], many[3], late[3]]
    assert due[10:] == many[4:PER_TENANT]

    full = await opened.deliveries.due(Room(many[:PER_TENANT], set()))
    assert full == [late[0], shared[0], late[1], shared[1], late[2], late[3]]


async def test_deliveries_that_ended_are_forgotten_after_a_week_and_no_others(
    opened: Machine, clock: FakeClock
) -> None:
    done, open_ = waiting("a.example", 1, clock()), waiting("a.example", 2, clock())
    await opened.deliveries.add([done, open_])
    await opened.deliveries.save(done.after(Answer(200), clock(), 0.5))

    assert await opened.deliveries.purge() == 0
    clock.advance(RETENTION_S)
    assert await opened.deliveries.purge() == 1
    assert await opened.deliveries.of("default", open_.subject) == [open_]


async def test_the_loop_delivers_the_end_of_a_job_and_tells_how_it_went(tmp_path: Path) -> None:
    async with machine(tmp_path, time.time) as here, receiver(status(200)) as where:
        job = an_announced_job(callback_url=f"http://{where.place}/done")
        await here.jobs.create(job)
        async with running(here.loop(Allowed.of(where.place))):
            await here.jobs.close(job.id, JobState.CANCELLED, None, time.time())
            await tried(here, job, 1)
            await asyncio.sleep(0.7)  # it is not told again

        (seen,) = await here.deliveries.of("default", job.id)
        assert (seen.state, seen.attempts, seen.last_status) == (DeliveryState.DELIVERED, 1, 200)
        assert len(where.received) == 1


async def test_what_a_dead_receiver_is_owed_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async def dead(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with (
        machine(tmp_path, time.time) as here,
        receiver(dead) as hole,
        receiver(status(200)) as where,
    ):
        allowed = Allowed.of(f"{hole.place},localhost:{where.port}")
        lost = [an_announced_job(callback_url=f"http://{hole.place}/{n}") for n in range(60)]
        good = [an_announced_job(callback_url=f"http://localhost:{where.port}/") for _ in range(5)]
        await here.jobs.create_many([*lost, *good])
        for job in [*lost, *good]:
            await here.jobs.close(job.id, JobState.FAILED, None, time.time())

        async with running(here.loop(allowed)):
            await until(lambda: len(where.received) == len(good))

    assert hole.connections <= 8


async def test_a_tenant_whose_many_hosts_do_not_answer_does_not_hold_up_the_others(
    tmp_path: Path,
) -> None:
    class Hosts:
        """Of which those of one tenant never answer."""

        asked = 0

        async def post(
            self, tenant: str, url: WebhookUrl, headers: Mapping[str, str], body: str
        ) -> Answer:
            if tenant == "a":
                self.asked += 1
                await asyncio.Event().wait()
            return Answer(200)

    async with machine(tmp_path, time.time) as here:
        now, hosts = time.time(), Hosts()
        lost = [waiting(f"h{n}.example", n, now - 9, "a") for n in range(100)]
        await here.deliveries.add(lost)
        loop = here.loop(Allowed())
        loop.deliverer = replace(loop.deliverer, sender=hosts)
        for tenant in "ab":
            secret = Secret(secret_of(bytes(32)))
            await here.endpoints.create(
                Endpoint("we_1", tenant, "https://x.example/", frozenset(), (secret,), now)
            )
        async with running(loop):
            await until(lambda: hosts.asked == PER_TENANT)
            good = waiting("z.example", 1, now, "b")
            await here.deliveries.add([good])
            async with asyncio.timeout(PATIENCE_S):
                while not (await here.deliveries.of("b", good.subject))[0].attempts:
                    await asyncio.sleep(0.02)

    assert hosts.asked == PER_TENANT


async def test_what_was_under_way_when_the_process_ended_is_delivered_by_the_next(
    tmp_path: Path,
) -> None:
    hold = asyncio.Event()

    async def slow(writer: asyncio.StreamWriter) -> None:
        await hold.wait()
        await status(200)(writer)

    async with receiver(slow) as where:
        allowed = Allowed.of(where.place)
        job = an_announced_job(callback_url=f"http://{where.place}/")
        async with machine(tmp_path, time.time) as first:
            await first.jobs.create(job)
            await first.jobs.close(job.id, JobState.FAILED, None, time.time())
            async with running(first.loop(allowed)):
                await until(lambda: bool(where.received))

        hold.set()
        async with machine(tmp_path, time.time) as second, running(second.loop(allowed)):
            await until(lambda: len(where.received) == 2)

    first_id, second_id = (got.headers["webhook-id"] for got in where.received)
    assert first_id == second_id


async def test_a_refusal_is_tried_again_with_the_same_id_and_a_new_signature(
    tmp_path: Path,
) -> None:
    answers = [status(503), status(200)]

    async def once(writer: asyncio.StreamWriter) -> None:
        await answers.pop(0)(writer)

    clock = FakeClock(time.time())
    async with machine(tmp_path, clock) as here, receiver(once) as where:
        job = an_announced_job(callback_url=f"http://{where.place}/")
        await here.jobs.create(job)
        await here.jobs.close(job.id, JobState.FAILED, None, clock())
        async with running(here.loop(Allowed.of(where.place))):
            await tried(here, job, 1)
            await asyncio.sleep(0.7)  # its time has not come
            assert len(where.received) == 1
            clock.advance(5.0)
            seen = await tried(here, job, 2)

    first, second = (got.headers for got in where.received)
    assert first["webhook-id"] == second["webhook-id"]
    assert first["webhook-signature"] != second["webhook-signature"]
    assert (seen.state, seen.attempts) == (DeliveryState.DELIVERED, 2)
