"""What runs and what waits, by the slots of the workers that are up."""

from __future__ import annotations

from dataclasses import replace

from synapse.adapters.local.slots import SlotLedger
from synapse.application.under_way import load_of
from synapse.domain.admission import Load
from synapse.domain.pool import IN_RUNNER
from tests.factories import a_model, a_pool, a_worker
from tests.fakes import FakeClock

ECHO = a_model("echo", slots=8)
FIXED, FLEET = a_pool("fixed"), a_pool("cpu", endpoint="", max_workers=4)


async def test_the_slots_are_those_of_all_workers_that_are_up() -> None:
    ledger = SlotLedger(FakeClock())
    ledger.occupy("echo", "cpu", 20)
    ledger.occupy("echo", "fixed", 10)
    pair = [a_worker("w-1"), a_worker("w-2")]

    assert await load_of(ECHO, [FIXED, FLEET], ledger, pair) == Load(24, 6)
    assert await load_of(ECHO, [FIXED, FLEET], ledger, pair[:1]) == Load(16, 14)
    assert await load_of(ECHO, [FLEET], ledger, []) == Load(0, 20)


async def test_a_pool_whose_calls_bring_their_workers_has_as_many_as_may_be() -> None:
    ledger = SlotLedger(FakeClock())
    ledger.occupy("echo", "fixed", 30)

    brought = replace(FIXED, endpoint=IN_RUNNER, max_workers=3)

    assert await load_of(ECHO, [brought], ledger, []) == Load(24, 6)
