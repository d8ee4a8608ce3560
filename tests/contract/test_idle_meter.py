"""IdleMeter: what was idle is paid for once, however many pay at the same time."""

from __future__ import annotations

import asyncio

import pytest

from synapse.domain.receipt import SPREAD_OVER_S
from synapse.ports import IdleMeter
from tests.factories import NOW

UP = [NOW - 1000.0]


async def test_the_first_pays_for_nothing_that_was_before_the_meter(
    idle_meter: IdleMeter,
) -> None:
    assert await idle_meter.charge("cpu", NOW, UP, 1.0) == 0.0


async def test_whoever_comes_later_pays_a_share_of_what_was_idle(idle_meter: IdleMeter) -> None:
    await idle_meter.charge("cpu", NOW, UP, 0.0)

    all_but = await idle_meter.charge("cpu", NOW + 101.0, UP, 1.0)
    rest = await idle_meter.charge("cpu", NOW + 101.0, UP, 40 * SPREAD_OVER_S)

    assert all_but == pytest.approx(100 / SPREAD_OVER_S, rel=0.01)
    assert rest == 0.0  # so much work in no time: it was not idle at all


async def test_pools_are_metered_apart_and_those_with_nobody_up_are_not_idle(
    idle_meter: IdleMeter,
) -> None:
    for pool in ("cpu", "gpu"):
        await idle_meter.charge(pool, NOW, UP, 0.0)

    assert await idle_meter.charge("cpu", NOW + 100, UP, 10.0) > 0
    assert await idle_meter.charge("gpu", NOW + 100, [], 10.0) == 0.0


async def test_many_at_once_pay_no_more_than_there_was(idle_meter: IdleMeter) -> None:
    await idle_meter.charge("cpu", NOW, UP, 0.0)

    paid = await asyncio.gather(
        *(idle_meter.charge("cpu", NOW + 600.0, UP, 5.0) for _ in range(20))
    )

    assert 0 < sum(paid) <= 600.0
