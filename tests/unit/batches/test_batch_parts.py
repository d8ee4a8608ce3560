"""The parts of a batch's output stay few, however few lines each step writes."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.adapters.file_batch_records import file_batch_to_json
from synapse.application import batch_parts
from synapse.application.batch_parts import MAX_SMALL_PARTS
from synapse.domain.errors import Unavailable
from synapse.domain.file_batch import FileBatchStatus
from tests.faults import failing_after, failing_before
from tests.unit.batches.batch_world import a_line
from tests.unit.batches.test_batch_limits import LimitedWorld

LINES = 3 * MAX_SMALL_PARTS
KINDS = {"output": "p", "error": "fail"}


class OneByOne(LimitedWorld):
    """Each step writes the one line that may be under way, and submits the next."""

    def __init__(self) -> None:
        super().__init__(concurrent_jobs=1)

    async def begun(self, prompt: str, lines: int = LINES) -> None:
        texts = (
            a_line(n, body={"model": "echo", "prompt": f"{prompt}{n}"}) for n in range(1, lines + 1)
        )
        await self.created(texts, caller=self.caller)
        await self.step()

    async def until(self, parts: int, kind: str) -> None:
        """Step until the record names so many parts of that kind, and one line more has ended."""
        while len(self.parts(kind)) < parts:
            await self.step()
            await self.work()

    def parts(self, kind: str) -> tuple[str, ...]:
        return self.batch.output_parts if kind == "output" else self.batch.error_parts

    def blobs_of_parts(self) -> set[str]:
        return {key.rpartition("/")[2] for key in self.blobs.blobs if key.startswith("batches/")}

    async def whole(self, kind: str, lines: int = LINES) -> None:
        """Run on to the end: no line is missing, none is there twice."""
        batch = await self.run(max_steps=10 * lines)
        assert batch.status is FileBatchStatus.COMPLETED
        found = list(await self.output()) if kind == "output" else await self._error_ids()
        assert sorted(found) == sorted(f"c{n}" for n in range(1, lines + 1))
        assert not self.blobs_of_parts()

    async def _error_ids(self) -> list[Any]:
        return [line["custom_id"] for line in await self.errors()]


@pytest.mark.parametrize("kind", KINDS)
async def test_many_steps_of_one_line_leave_few_parts(kind: str) -> None:
    world = OneByOne()
    await world.begun(KINDS[kind])

    most = largest = 0
    while not (await world.step()).is_done:
        await world.work()
        if world.batch.status is FileBatchStatus.IN_PROGRESS:
            assert set(world.parts(kind)) == world.blobs_of_parts()
        most = max(most, len(world.parts(kind)))
        largest = max(largest, len(file_batch_to_json(world.batch)))

    assert most == MAX_SMALL_PARTS
    assert largest < 4096
    await world.whole(kind)


@pytest.mark.parametrize("kind", KINDS)
async def test_parts_that_are_large_enough_are_left_alone(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = OneByOne()
    monkeypatch.setattr(batch_parts, "PART_BYTES", 1000)
    await world.begun(KINDS[kind])

    blobs, written = world.blobs.blobs, 0
    while not (await world.step()).is_done:
        await world.work()
        parts = [blobs.get(_key(world, name), b"") for name in world.parts(kind)]
        written = max(written, sum(map(len, parts)))
        assert len(parts) <= MAX_SMALL_PARTS + written // 1000

    await world.whole(kind)


def _key(world: OneByOne, name: str) -> str:
    return batch_parts.part_key(world.batch, name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fails", [failing_before, failing_after], ids=["unsaved", "unheard"])
async def test_a_crash_after_parts_were_put_together_loses_no_line_and_doubles_none(
    kind: str, fails: Any
) -> None:
    world = OneByOne()
    await world.begun(KINDS[kind])
    await world.until(MAX_SMALL_PARTS, kind)

    with pytest.raises(Unavailable):
        await world.step(batches=fails(world.batches, save=[Unavailable("crash")]))

    assert set(world.parts(kind)) <= world.blobs_of_parts()
    await world.run(max_steps=10 * LINES)
    counts = world.batch.counts
    assert (counts.completed, counts.failed) == ((LINES, 0) if kind == "output" else (0, LINES))
    lines = await world._lines(world.batch.output_file_id or world.batch.error_file_id)
    found = sorted(line["custom_id"] for line in lines)
    assert found == sorted(f"c{n}" for n in range(1, LINES + 1))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_driver_that_is_overtaken_deletes_no_part_that_the_record_names(
    kind: str,
) -> None:
    world = OneByOne()
    await world.begun(KINDS[kind])
    await world.until(MAX_SMALL_PARTS, kind)

    class Overtaken:
        """Another driver is faster with the same step."""

        def __getattr__(self, name: str) -> Any:
            return getattr(world.batches, name)

        async def save(self, batch: Any) -> bool:
            await world.step()
            return await world.batches.save(batch)

    await world.step(batches=Overtaken())

    assert len(world.parts(kind)) == 2
    assert set(world.parts(kind)) <= world.blobs_of_parts()


async def test_parts_of_an_earlier_version_are_kept_as_they_are() -> None:
    world = OneByOne()
    await world.begun("p", lines=10)
    await world.until(3, "output")
    batch = world.batch
    renamed = tuple(name.partition("-")[0] for name in batch.output_parts)
    for old, new in zip(batch.output_parts, renamed, strict=True):
        world.blobs.blobs[_key(world, new)] = world.blobs.blobs.pop(_key(world, old))
    object.__setattr__(batch, "output_parts", renamed)

    await world.whole("output", lines=10)
