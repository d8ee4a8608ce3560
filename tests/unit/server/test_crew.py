"""The crew of a pool: as many workers as are wanted, whatever becomes of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping

import pytest

from synapse.domain.pool import Pool, PoolSize
from synapse.domain.retry import RetryPolicy
from synapse_server.crew import REPLACE, STABLE_S, Crew
from synapse_worker.errors import WorkerError
from tests.patience import PATIENCE_S

QUICK = RetryPolicy(base_s=0.02, max_s=1.0)


class ScriptedWorker:
    """A worker that does what the test says, and writes down what it is asked."""

    def __init__(self, worker_id: str, place: int) -> None:
        self.id = worker_id
        self.place = place
        self.did: list[str] = []
        self.made_at = time.monotonic()
        self.up = asyncio.Event()
        self.failed = asyncio.Event()
        self.drained = asyncio.Event()
        self.stopped = asyncio.Event()
        self.start_error: WorkerError | None = None
        self.detail = "it died once too often"
        self.is_busy = False
        self.models: list[str] = []

    async def start(self) -> None:
        self.did.append("start")
        await self.up.wait()
        if self.start_error is not None:
            raise self.start_error

    async def wait_failed(self) -> None:
        await self.failed.wait()

    async def load(
        self,
        model: str,
        used_at: Mapping[str, float],
        keep: Collection[str],
        yielding: Collection[str],
    ) -> None:
        self.did.append(f"load {model}")

    async def drain(self) -> None:
        self.did.append("drain")
        await self.drained.wait()

    async def stop(self) -> None:
        self.did.append("stop")
        self.stopped.set()

    def fail_to_start(self) -> None:
        self.start_error = WorkerError("No memory", "Add some")
        self.up.set()


class Yard:
    """Crews, and all workers that were ever made for them."""

    def __init__(self) -> None:
        self.made: list[ScriptedWorker] = []
        self.crews: list[Crew] = []
        self.all_are_up = False

    def make(self, worker_id: str, place: int) -> ScriptedWorker:
        worker = ScriptedWorker(worker_id, place)
        if self.all_are_up:
            worker.up.set()
        self.made.append(worker)
        return worker

    def crew(
        self, least: int, most: int, replace: RetryPolicy = QUICK, drain_s: float = PATIENCE_S
    ) -> Crew:
        pool = Pool("fast", "cpu", min_workers=least, max_workers=most)
        crew = Crew(pool, self.make, time.monotonic, replace, drain_s)
        self.crews.append(crew)
        return crew


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    yard = Yard()
    yield yard
    for worker in yard.made:
        worker.drained.set()
    for crew in yard.crews:
        await crew.close()


async def until(holds: Callable[[], bool]) -> None:
    """Let the others run until it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0)


async def test_a_pool_of_none_is_open_at_once(yard: Yard) -> None:
    crew = yard.crew(0, 2)

    await crew.open()

    assert yard.made == []
    assert crew.size() == PoolSize(0, 0, 0)


async def test_it_is_open_when_its_least_number_is_up(yard: Yard) -> None:
    crew = yard.crew(2, 3)
    opening = asyncio.create_task(crew.open())
    await until(lambda: len(yard.made) == 2)
    assert crew.size() == PoolSize(desired=2, ready=0, starting=2)

    yard.made[0].up.set()
    await until(lambda: crew.size().ready == 1)
    assert not opening.done()
    yard.made[1].up.set()
    await opening

    assert crew.size() == PoolSize(desired=2, ready=2, starting=0)
    assert [worker.id for worker in yard.made] == ["fast-1", "fast-2"]
    assert [worker.place for worker in yard.made] == [0, 1]


async def test_a_first_start_that_fails_is_the_callers_to_tell(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    crew = yard.crew(2, 2)
    opening = asyncio.create_task(crew.open())
    await until(lambda: len(yard.made) == 2)
    yard.made[1].fail_to_start()

    with pytest.raises(WorkerError, match="No memory"):
        await opening
    await crew.close()

    assert all(worker.stopped.is_set() for worker in yard.made)
    assert caplog.records == []


async def test_it_grows_to_its_most_and_no_further(yard: Yard) -> None:
    yard.all_are_up = True
    crew = yard.crew(0, 3)
    await crew.open()

    crew.resize(7)
    await until(lambda: crew.size().ready == 3)

    assert crew.size() == PoolSize(3, 3, 0)
    assert len(yard.made) == 3


async def test_who_is_no_longer_wanted_is_drained_before_it_is_stopped(yard: Yard) -> None:
    yard.all_are_up = True
    crew = yard.crew(2, 2)
    await crew.open()

    crew.resize(1)
    last = yard.made[1]
    await until(lambda: last.did == ["start", "drain"])
    assert crew.size() == PoolSize(1, 1, 0)
    assert not last.stopped.is_set()
    last.drained.set()
    await last.stopped.wait()

    assert last.did == ["start", "drain", "stop"]
    assert yard.made[0].did == ["start"]


async def test_who_still_works_when_its_time_to_drain_is_over_is_stopped_and_told_of(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    yard.all_are_up = True
    crew = yard.crew(1, 1, drain_s=0.01)
    cut: list[tuple[str, list[str]]] = []
    crew.on_cut = lambda worker_id: cut.append((worker_id, list(yard.made[0].did)))
    await crew.open()

    crew.resize(0)
    await until(lambda: yard.made[0].stopped.is_set())

    assert cut == [("fast-1", ["start", "drain"])], "before its engine is gone"
    assert "worker fast-1 still works" in caplog.text
    assert crew.trouble == "", "it has not failed"


async def test_the_idle_go_before_the_busy(yard: Yard) -> None:
    yard.all_are_up = True
    crew = yard.crew(2, 2)
    await crew.open()
    yard.made[1].is_busy = True

    crew.resize(1)
    await until(lambda: "drain" in yard.made[0].did)

    assert yard.made[1].did == ["start"]


async def test_who_is_still_starting_goes_first_and_at_once(yard: Yard) -> None:
    crew = yard.crew(1, 2)
    opening = asyncio.create_task(crew.open())
    await until(lambda: len(yard.made) == 1)
    yard.made[0].up.set()
    await opening
    crew.resize(2)
    await until(lambda: len(yard.made) == 2)

    crew.resize(1)
    await until(lambda: yard.made[1].stopped.is_set())

    assert yard.made[1].did == ["start", "stop"]
    assert crew.size() == PoolSize(1, 1, 0)


async def test_there_are_never_more_than_its_most_even_while_one_drains(yard: Yard) -> None:
    yard.all_are_up = True
    crew = yard.crew(1, 1)
    await crew.open()
    crew.resize(0)
    await until(lambda: "drain" in yard.made[0].did)

    crew.resize(1)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(yard.made) == 1
    yard.made[0].drained.set()
    await until(lambda: crew.size().ready == 1)

    assert [worker.place for worker in yard.made] == [0, 0]


async def test_who_fails_is_taken_out_and_replaced_after_pauses_that_double(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    crew = yard.crew(0, 1)
    await crew.open()
    crew.resize(1)
    for number in range(4):
        await until(lambda wanted=number + 1: len(yard.made) == wanted)  # type: ignore[misc]
        yard.made[number].fail_to_start()
    yard.all_are_up = True
    await until(lambda: crew.size().ready == 1)

    gaps = [b.made_at - a.made_at for a, b in zip(yard.made, yard.made[1:], strict=False)]
    assert [gap >= wanted for gap, wanted in zip(gaps, (0.02, 0.04, 0.08, 0.16), strict=True)] == [
        True
    ] * 4
    assert all(worker.stopped.is_set() for worker in yard.made[:4])
    assert crew.trouble == ""


async def test_an_engine_that_gave_up_makes_room_for_another(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    yard.all_are_up = True
    crew = yard.crew(1, 1)
    await crew.open()

    yard.made[0].failed.set()
    await until(lambda: len(yard.made) == 2 and crew.size().ready == 1)

    assert yard.made[0].did == ["start", "stop"]
    assert yard.made[1].id == "fast-2"
    assert "worker fast-1 is taken out: it died once too often" in caplog.text


async def test_while_nobody_is_wanted_a_failure_starts_nobody(yard: Yard) -> None:
    crew = yard.crew(0, 1)
    await crew.open()
    crew.resize(1)
    await until(lambda: len(yard.made) == 1)
    yard.made[0].fail_to_start()
    await until(lambda: crew.trouble != "")

    crew.resize(0)
    await asyncio.wait_for(yard.made[0].stopped.wait(), PATIENCE_S)
    await asyncio.sleep(3 * QUICK.base_s)

    assert len(yard.made) == 1
    assert crew.size() == PoolSize(0, 0, 0)
    assert "No memory" in crew.trouble


async def test_closing_stops_all_that_run_start_or_drain(yard: Yard) -> None:
    yard.all_are_up = True
    crew = yard.crew(2, 3)
    await crew.open()
    crew.resize(1)
    await until(lambda: any("drain" in worker.did for worker in yard.made))
    yard.all_are_up = False
    crew.resize(2)
    await until(lambda: len(yard.made) == 3)

    await crew.close()

    assert all(worker.did[-1] == "stop" for worker in yard.made)


async def test_who_is_up_and_stays_can_be_asked_for_by_its_id(yard: Yard) -> None:
    crew = yard.crew(2, 2)
    assert crew.staying("fast-1") is None
    opening = asyncio.create_task(crew.open())
    await until(lambda: len(yard.made) == 2)
    first, second = yard.made
    second.up.set()
    await until(lambda: crew.size().ready == 1)
    assert (crew.staying("fast-1"), crew.staying("fast-2")) == (None, second)
    first.up.set()
    await opening
    assert crew.staying("fast-1") is first

    crew.resize(1)
    await until(lambda: crew.size().ready == 1)
    assert crew.staying("fast-2") is None, "it leaves"


class Times:
    """A crew of eight that is moved through time by hand."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.now = 0.0
        pool = Pool("fast", "cpu", min_workers=0, max_workers=8)
        self.crew = Crew(pool, yard.make, lambda: self.now)
        yard.crews.append(self.crew)

    async def at(self, now: float) -> None:
        """Make it so late, and have the crew see it."""
        self.now = now
        for _ in range(30):
            self.crew.resize(self.crew.size().desired)
            await asyncio.sleep(0)


async def test_those_that_fail_together_for_one_reason_share_a_pause(yard: Yard) -> None:
    times = Times(yard)
    await times.crew.open()
    times.crew.resize(8)
    await until(lambda: len(yard.made) == 8)
    for worker in yard.made:
        worker.fail_to_start()
    await until(lambda: all(worker.stopped.is_set() for worker in yard.made))

    await times.at(REPLACE.base_s - 0.1)
    assert len(yard.made) == 8
    await times.at(REPLACE.base_s)
    assert len(yard.made) == 16, "one reason is one failure"

    for worker in yard.made[8:]:
        worker.fail_to_start()
    await times.at(times.now)
    await times.at(3 * REPLACE.base_s - 0.1)
    assert len(yard.made) == 16, "the second time the pause is twice as long"
    await times.at(3 * REPLACE.base_s)
    assert len(yard.made) == 24


async def test_pauses_begin_anew_once_one_that_came_up_since_has_stayed_up(yard: Yard) -> None:
    times = Times(yard)
    await times.crew.open()
    times.crew.resize(1)
    await until(lambda: len(yard.made) == 1)
    at = 0.0
    for number in range(4):
        yard.made[number].fail_to_start()
        await times.at(at)
        at += REPLACE.base_s * 2**number
        await times.at(at)
        assert len(yard.made) == number + 2
    yard.made[4].up.set()
    await until(lambda: times.crew.size().ready == 1)

    await times.at(at + STABLE_S + 1)
    times.crew.resize(2)
    await until(lambda: len(yard.made) == 6)
    yard.made[5].fail_to_start()
    await times.at(times.now)
    await times.at(times.now + REPLACE.base_s)
    assert len(yard.made) == 7, "all was well for long: this is a first failure"


async def test_failures_of_workers_that_each_lived_long_are_first_ones(yard: Yard) -> None:
    yard.all_are_up = True
    times = Times(yard)
    await times.crew.open()
    times.crew.resize(4)
    await until(lambda: times.crew.size().ready == 4)
    at = STABLE_S
    for number in range(4):
        # None has been up for long since the failure before, but each before it fails.
        yard.made[number].failed.set()
        await times.at(at)
        await times.at(at + REPLACE.base_s)
        assert len(yard.made) == number + 5
        at += STABLE_S / 2

    yard.made[7].failed.set()
    await times.at(times.now)
    await times.at(times.now + 2 * REPLACE.base_s - 0.1)
    assert len(yard.made) == 8, "this one has just come"
    await times.at(times.now + 0.1)
    assert len(yard.made) == 9
