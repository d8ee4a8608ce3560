"""BatchStarter: the batcher gets every order once, whole, pools in the order of choice."""

from __future__ import annotations

from tests.contract.openers import StarterCase
from tests.factories import a_pool, an_id, an_order


async def test_an_order_reaches_the_batcher(starter_case: StarterCase) -> None:
    order = an_order("job-1", "job-é-🦊", pools=(a_pool("gpu"), a_pool("neuron"), a_pool("cpu")))

    await starter_case.starter.start([order])

    [taken] = await starter_case.taken()
    assert taken.batch == order.batch
    assert [(pool.name, pool.runner) for pool in taken.pools] == [
        (pool.name, pool.runner) for pool in order.pools
    ]


async def test_many_orders_all_reach_the_batcher_once(starter_case: StarterCase) -> None:
    orders = [an_order() for _ in range(95)]

    await starter_case.starter.start(orders)

    taken = await starter_case.taken()
    assert sorted(o.batch.id for o in taken) == sorted(o.batch.id for o in orders)


async def test_large_orders_all_reach_the_batcher_once(starter_case: StarterCase) -> None:
    orders = [an_order(*(an_id("job-") for _ in range(512))) for _ in range(30)]

    await starter_case.starter.start(orders)

    taken = await starter_case.taken()
    assert {o.batch.id: o.batch for o in taken} == {o.batch.id: o.batch for o in orders}


async def test_starting_nothing_is_no_error(starter_case: StarterCase) -> None:
    await starter_case.starter.start([])

    assert await starter_case.taken() == []
