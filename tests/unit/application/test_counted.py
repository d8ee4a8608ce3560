"""Batches of jobs count as in flight while they run."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from synapse.adapters.local.slots import SlotLedger
from synapse.application.counted import CountedEngine
from synapse.domain.errors import EngineUnavailable, Unavailable
from synapse.domain.inference import ModelInput
from synapse.domain.job import JobId, JobState, SlaTier
from synapse.ports import Entry, InferenceRequest
from tests.factories import a_model, a_pool
from tests.fakes import FakeClock, MemoryRegistry, ScriptedEngine
from tests.unit.application.world import World

MODEL, POOL = a_model("echo"), a_pool()
REQUESTS = [
    InferenceRequest(JobId("one"), 60.0, ModelInput(prompt="one")),
    InferenceRequest(JobId("two"), 60.0, ModelInput(prompt="two", samples=3)),
]


@pytest.fixture
def ledger() -> SlotLedger:
    return SlotLedger(FakeClock())


def counted(in_flight: SlotLedger) -> CountedEngine:
    world = World(slots=in_flight, registry=MemoryRegistry([MODEL], [POOL]))
    return CountedEngine(ScriptedEngine(), in_flight, world.fleet.windows, world.clock)


def bronze(count: int, samples: int = 1) -> list[InferenceRequest]:
    value = ModelInput(prompt="x", samples=samples)
    return [InferenceRequest(JobId(f"b-{n}"), 60.0, value, 3, SlaTier.BRONZE) for n in range(count)]


async def outcomes(engine: CountedEngine, requests: list[InferenceRequest]) -> dict[str, bool]:
    """Whether each request was begun."""
    found = [each async for each in engine.infer(MODEL, POOL, requests)]
    assert len(found) == len(requests)
    return {job_id: not isinstance(outcome, EngineUnavailable) for job_id, outcome in found}


async def test_a_batch_counts_with_all_its_samples_until_it_has_run(ledger: SlotLedger) -> None:
    during = []

    async for _ in counted(ledger).infer(MODEL, POOL, REQUESTS):
        during.append(await ledger.count("echo", "cpu"))

    assert during == [4, 4]
    assert await ledger.count("echo", "cpu") == 0


async def test_a_batch_that_is_given_up_counts_no_more(ledger: SlotLedger) -> None:
    async with aclosing(counted(ledger).infer(MODEL, POOL, REQUESTS)) as outcomes:
        await anext(outcomes)
        assert await ledger.count("echo", "cpu") == 4

    assert await ledger.count("echo", "cpu") == 0


async def test_jobs_are_let_in_however_many_there_are(ledger: SlotLedger) -> None:
    assert await ledger.enter("echo", "cpu", 10_000, 10_000, float("inf")) is not None

    outcomes = [outcome async for outcome in counted(ledger).infer(MODEL, POOL, REQUESTS)]

    assert [job_id for job_id, _ in outcomes] == ["one", "two"]


class Unreachable(SlotLedger):
    """A count that cannot be had."""

    async def enter(
        self,
        model: str,
        pool: str,
        items: int,
        limit: int,
        expires_at: float,
        tier: SlaTier = SlaTier.SILVER,
    ) -> Entry | None:
        raise Unavailable("the count is away")


async def test_a_batch_runs_even_if_it_cannot_be_counted() -> None:
    engine = counted(Unreachable(FakeClock()))

    outcomes = [outcome async for outcome in engine.infer(MODEL, POOL, REQUESTS)]

    assert len(outcomes) == 2


async def test_bronze_is_begun_as_far_as_its_window_goes(ledger: SlotLedger) -> None:
    entry = await ledger.enter("echo", "cpu", 2, 100, float("inf"), SlaTier.GOLD)
    assert entry is not None

    begun = await outcomes(counted(ledger), bronze(8))

    # Of 8 slots gold has two, and one more is kept for it.
    assert [name for name, is_begun in begun.items() if is_begun] == [f"b-{n}" for n in range(5)]
    assert ledger.in_flight("echo", "cpu") == 2


async def test_bronze_has_a_pool_for_itself_where_nobody_better_was_seen(
    ledger: SlotLedger,
) -> None:
    assert sum((await outcomes(counted(ledger), bronze(10))).values()) == 8
    assert all((await outcomes(counted(ledger), bronze(1, samples=20))).values())


async def test_no_bronze_is_begun_where_better_tiers_have_all(ledger: SlotLedger) -> None:
    assert await ledger.enter("echo", "cpu", 8, 100, float("inf")) is not None

    assert not any((await outcomes(counted(ledger), bronze(3))).values())


async def test_bronze_that_is_refused_goes_back_to_its_queue_and_has_lost_no_worker() -> None:
    world = World(registry=MemoryRegistry([MODEL], [POOL]))
    assert await world.slots.enter("echo", "cpu", 8, 100, float("inf")) is not None
    engine = world.engine
    world.runner.engine = CountedEngine(engine, world.slots, world.fleet.windows, world.clock)
    job = await world.submit(sla=SlaTier.BRONZE)

    for _ in range(5):
        await world.work()

    again = await world.job(job.id)
    assert (again.state, again.losses) == (JobState.QUEUED, 0)
    assert engine.calls == []
    # Between any two turns there are the batcher's pauses: nothing spins.
    assert len(world.slept_s) == 5 * 2
