"""The driver of one machine: takes up what is open, gives every batch its turn, never stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from synapse.application.advance import WINDOW_LINES, Progress
from synapse.domain.errors import Unavailable
from synapse.domain.file_batch import FileBatchId
from synapse_server import batch_driver
from synapse_server.batch_driver import BatchDriver, LocalFileBatchStarter
from tests.factories import a_file_batch
from tests.fake_file_batches import MemoryFileBatchStore
from tests.faults import failing_before
from tests.patience import PATIENCE_S, until

Step = Callable[[FileBatchId, int], Awaitable[Progress]]


class ScriptedAdvancer:
    """Steps as a test says."""

    def __init__(self, step: Step) -> None:
        self._step = step

    async def advance(self, tenant: str, batch_id: FileBatchId, window: int) -> Progress:
        return await self._step(batch_id, window)


@asynccontextmanager
async def driving(step: Step, store: Any = None) -> Any:
    driver = BatchDriver(store or MemoryFileBatchStore(), ScriptedAdvancer(step))  # type: ignore[arg-type]
    task = asyncio.create_task(driver.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield LocalFileBatchStarter(driver)
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_batches_that_were_left_open_are_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_driver, "FIRST_PAUSE_S", 0.01)
    store = MemoryFileBatchStore()
    left = [a_file_batch(), a_file_batch()]
    for batch in left:
        await store.create(batch)
    seen: set[FileBatchId] = set()

    async def step(batch_id: FileBatchId, window: int) -> Progress:
        seen.add(batch_id)
        return Progress(is_done=True)

    async with driving(step, failing_before(store, open=[Unavailable("not yet")])):
        await until(lambda: len(seen) == 2)

    assert seen == {batch.id for batch in left}


async def test_a_clock_that_is_set_back_holds_up_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    set_back_s, steps, clock = 0.0, 0, time.time
    monkeypatch.setattr(time, "time", lambda: clock() - set_back_s)

    async def step(batch_id: FileBatchId, window: int) -> Progress:
        nonlocal set_back_s, steps
        steps, set_back_s = steps + 1, set_back_s + 3600.0
        return Progress(is_done=steps == 3, wait_s=0.001)

    async with driving(step) as starter:
        await starter.start(a_file_batch())
        await until(lambda: steps == 3)


async def test_batches_take_turns_and_share_the_window() -> None:
    order: list[tuple[FileBatchId, int]] = []

    async def step(batch_id: FileBatchId, window: int) -> Progress:
        order.append((batch_id, window))
        return Progress(is_done=False)

    one, two = a_file_batch(), a_file_batch()
    async with driving(step) as starter:
        await starter.start(one)
        await starter.start(two)
        await until(lambda: len(order) > 20)

    turns = [batch_id for batch_id, _ in order[:20]]
    assert turns.count(one.id) in (9, 10, 11)
    assert {window for _, window in order[1:20]} == {WINDOW_LINES // 2}


async def test_a_batch_that_waits_is_stepped_at_once_when_it_is_started_again() -> None:
    steps: list[FileBatchId] = []

    async def step(batch_id: FileBatchId, window: int) -> Progress:
        steps.append(batch_id)
        return Progress(is_done=False, wait_s=3600)

    batch = a_file_batch()
    async with driving(step) as starter:
        await starter.start(batch)
        await until(lambda: len(steps) == 1)
        await starter.start(batch)
        await until(lambda: len(steps) == 2)


async def test_a_start_during_a_step_is_not_lost() -> None:
    steps = 0
    batch = a_file_batch()

    async def step(batch_id: FileBatchId, window: int) -> Progress:
        nonlocal steps
        steps += 1
        if steps == 1:
            await starter.start(batch)
        return Progress(is_done=False, wait_s=3600)

    async with driving(step) as starter:
        await starter.start(batch)
        await until(lambda: steps == 2)
        await asyncio.sleep(0.01)

    assert steps == 2


@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("a bug")])
async def test_a_step_that_fails_is_tried_again_and_holds_up_no_other(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_driver, "FIRST_PAUSE_S", 0.02)
    bad, good = a_file_batch(), a_file_batch()
    failures = 0
    done: list[FileBatchId] = []

    async def step(batch_id: FileBatchId, window: int) -> Progress:
        nonlocal failures
        if batch_id == bad.id and failures < 3:
            failures += 1
            raise error
        done.append(batch_id)
        return Progress(is_done=True)

    async with driving(step) as starter:
        await starter.start(bad)
        await starter.start(good)
        await until(lambda: len(done) == 2)

    assert done == [good.id, bad.id]


async def test_an_ended_batch_is_let_go() -> None:
    steps = 0

    async def step(batch_id: FileBatchId, window: int) -> Progress:
        nonlocal steps
        steps += 1
        return Progress(is_done=True)

    async with driving(step) as starter:
        await starter.start(a_file_batch())
        await until(lambda: steps == 1)
        await asyncio.sleep(0.02)

    assert steps == 1
