"""Taking in, cancelling and restarting batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from synapse.application.file_batches import STALE_AFTER_S, FileBatches
from synapse.domain.errors import FileBatchNotCancellable, Unavailable
from synapse.domain.file_batch import FileBatch, FileBatchId, FileBatchStatus
from tests.factories import NOW
from tests.fake_file_batches import MemoryFileBatchStore
from tests.faults import failing_before
from tests.unit.batches.batch_world import BatchWorld, a_line


@pytest.fixture
def world() -> BatchWorld:
    return BatchWorld()


def use_cases(world: BatchWorld, **changes: Any) -> FileBatches:
    return replace(world.use_cases, **changes)


async def test_a_new_batch_is_recorded_and_started(world: BatchWorld) -> None:
    batch = await world.created([a_line(1)], metadata={"a": "b"}, window="30m")

    assert world.batch == batch
    assert world.starter.started == [batch.id]
    assert batch.expires_at == NOW + 1800
    assert batch.id.startswith("batch_")


async def test_a_batch_that_could_not_be_started_is_accepted_and_started_later(
    world: BatchWorld,
) -> None:
    world.starter = failing_before(world.starter, start=[Unavailable("throttled")])
    batch = await world.created([a_line(1)])
    assert world.starter.started == []

    world.clock.advance(STALE_AFTER_S)
    assert await use_cases(world).restart_stale() == [batch.id]

    assert world.starter.started == [batch.id]


async def test_a_batch_that_is_looked_after_is_not_restarted(world: BatchWorld) -> None:
    await world.created([a_line(1)])
    world.clock.advance(STALE_AFTER_S)
    await world.step()

    assert await use_cases(world).restart_stale() == []


async def test_an_ended_batch_is_not_restarted(world: BatchWorld) -> None:
    await world.created("")
    await world.run()
    world.clock.advance(STALE_AFTER_S)

    assert await use_cases(world).restart_stale() == []


class MovingStore(MemoryFileBatchStore):
    """Somebody else writes just before each of the first saves."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def save(self, batch: FileBatch) -> bool:
        if self.times:
            self.times -= 1
            current = self.batches[batch.id]
            self.batches[batch.id] = replace(current, revision=current.revision + 1)
        return await super().save(batch)


async def test_cancelling_wins_against_steps_that_are_recorded_meanwhile(
    world: BatchWorld,
) -> None:
    world.batches = MovingStore(times=5)
    batch = await world.created([a_line(1)])

    cancelled = await use_cases(world).cancel("default", batch.id)

    assert cancelled.status is FileBatchStatus.CANCELLING
    assert world.batch == cancelled
    assert world.starter.started == [batch.id, batch.id]


async def test_cancelling_gives_up_after_a_while(world: BatchWorld) -> None:
    world.batches = MovingStore(times=1000)
    batch = await world.created([a_line(1)])

    with pytest.raises(Unavailable):
        await use_cases(world).cancel("default", batch.id)


@pytest.mark.parametrize(
    "status", [FileBatchStatus.FINALIZING, FileBatchStatus.COMPLETED, FileBatchStatus.FAILED]
)
async def test_what_has_ended_or_is_about_to_cannot_be_cancelled(
    world: BatchWorld, status: FileBatchStatus
) -> None:
    batch = await world.created([a_line(1)])
    world.batches.batches[batch.id] = replace(batch, status=status)

    with pytest.raises(FileBatchNotCancellable, match=status.value):
        await use_cases(world).cancel("default", batch.id)


async def test_another_tenants_batch_is_not_there(world: BatchWorld) -> None:
    batch = await world.created([a_line(1)])

    assert (await use_cases(world).page("other", None, 10)).batches == []
    assert (await use_cases(world).page("default", None, 10)).batches == [batch]
    assert (await use_cases(world).page("default", FileBatchId("batch_0"), 10)).batches == []
