"""Batches of jobs count as in flight while they run."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from synapse.adapters.local.slots import SlotLedger
from synapse.application.counted import CountedEngine
from synapse.domain.errors import Unavailable
from synapse.domain.inference import ModelInput
from synapse.domain.job import JobId, SlaTier
from synapse.ports import Entry, InferenceRequest
from tests.factories import a_model, a_pool
from tests.fakes import FakeClock, ScriptedEngine

MODEL, POOL = a_model("echo"), a_pool()
REQUESTS = [
    InferenceRequest(JobId("one"), 60.0, ModelInput(prompt="one")),
    InferenceRequest(JobId("two"), 60.0, ModelInput(prompt="two", samples=3)),
]


@pytest.fixture
def ledger() -> SlotLedger:
    return SlotLedger(FakeClock())


def counted(in_flight: SlotLedger) -> CountedEngine:
    return CountedEngine(ScriptedEngine(), in_flight, FakeClock())


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
