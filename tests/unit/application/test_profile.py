"""The profiler: what lacks a profile, what is measured of it, what is said of problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from synapse.application.profile import OnProgress, Profiler, Progress, Report, Target
from synapse.domain.errors import EngineUnavailable
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.profile import Profile
from synapse.domain.profiling import ProfilingError
from tests.factories import NOW, a_model, a_pool
from tests.fake_profiles import MemoryProfileStore
from tests.fakes import FakeClock, MemoryRegistry
from tests.unit.application.test_measure import TimedEngine
from tests.virtual_time import in_virtual_time

MODEL = replace(a_model("echo"), slots=8)
FAST, SLOW = a_pool("fast", price_per_hour_usd=3.6), a_pool("slow")
KNOWN = Profile("echo", "1", "fast", "cpu", base_ms=1.0, measured_at=NOW - 60)


class World:
    """A profiler over fakes; `place` and `busy` are as the test leaves them."""

    def __init__(self, *known: Profile) -> None:
        self.store = MemoryProfileStore(*known)
        self.busy_items = 0
        self.worker = "w-1"
        self.asked: list[tuple[str, str]] = []
        self.profiler = Profiler(
            registry=MemoryRegistry([MODEL], [FAST, SLOW]),
            engine=TimedEngine(item_s=0.002, slots=4),
            store=self.store,
            place=self.place,
            busy=self.busy,
            clock=FakeClock(),
        )

    def run(
        self, targets: Sequence[Target], on_progress: OnProgress = lambda progress: None
    ) -> list[Report]:
        async def reports() -> list[Report]:
            return [each async for each in self.profiler.run(targets, 10.0, on_progress)]

        return in_virtual_time(reports())

    def kept(self) -> list[Profile]:
        return list(in_virtual_time(self.store.profiles()))

    async def place(self, spec: ModelSpec, pool: Pool) -> Pool:
        self.asked.append((spec.name, pool.name))
        if not self.worker:
            raise EngineUnavailable(f"pool {pool.name!r} has no worker")
        return replace(pool, worker=self.worker)

    async def busy(self, pool: Pool) -> int:
        return self.busy_items


async def test_a_profile_of_another_version_or_pool_is_none() -> None:
    stale = replace(KNOWN, pool="slow", version="0")
    found = await World(KNOWN, stale).profiler.targets()

    assert [(each.pool.name, each.known) for each in found] == [("fast", KNOWN), ("slow", None)]


async def test_a_target_is_found_by_its_names_in_the_version_that_is_served() -> None:
    profiler = World(KNOWN).profiler

    assert await profiler.target("echo", "1", "fast") == Target(MODEL, FAST, KNOWN)
    with pytest.raises(ProfilingError, match="served in version 1 now"):
        await profiler.target("echo", "0", "fast")


def test_where_no_worker_is_up_nothing_is_measured() -> None:
    world = World()
    world.worker = ""

    with pytest.raises(EngineUnavailable):
        in_virtual_time(world.profiler.measure_next(Target(MODEL, FAST), []))


def test_a_measurement_takes_no_longer_than_it_may() -> None:
    world = World()
    profiler = replace(world.profiler, engine=TimedEngine(item_s=20.0), most_s=45.0)
    found = in_virtual_time(profiler.measure_next(Target(MODEL, FAST), [], budget_s=30.0))

    assert found is not None
    assert found.took_s == pytest.approx(45.0)
    assert len(found.total_ms) == 1


async def test_targets_are_all_or_those_asked_for_with_the_profile_known() -> None:
    profiler = World(KNOWN).profiler

    assert list(await profiler.targets()) == [Target(MODEL, FAST, KNOWN), Target(MODEL, SLOW)]
    assert list(await profiler.targets("echo", "slow")) == [Target(MODEL, SLOW)]


@pytest.mark.parametrize(
    ("model", "pool", "said"),
    [
        ("nobody", "", "of model 'nobody'; there are: echo on fast, echo on slow"),
        ("", "nowhere", "pool 'nowhere'"),
        ("echo", "nowhere", "model 'echo' and pool 'nowhere'"),
    ],
)
async def test_what_is_not_served_cannot_be_profiled(model: str, pool: str, said: str) -> None:
    with pytest.raises(ProfilingError, match=said):
        await World().profiler.targets(model, pool)


def test_a_profile_is_measured_on_the_placed_worker_and_kept() -> None:
    world, seen = World(), list[Progress]()
    [report] = world.run([Target(MODEL, FAST)], seen.append)

    profile = report.profile
    assert profile is not None
    assert world.kept() == [profile]
    assert profile.base_ms == pytest.approx(2.0)
    assert profile.items_per_s == pytest.approx(4 / 0.002, rel=0.02)
    assert profile.best_batch == profile.saturates_at == 4
    assert profile.spread < 1.1
    assert profile.usd_per_1k_items == pytest.approx(1.0 / profile.items_per_s)
    assert profile.was_idle
    assert profile.measured_at == NOW
    assert set(world.asked) == {("echo", "fast")}
    assert [each.number for each in seen] == list(range(1, len(seen) + 1))
    assert len(seen) >= 6


def test_a_pool_that_has_other_work_is_measured_and_it_is_said() -> None:
    world = World()
    world.busy_items = 1
    [report] = world.run([Target(MODEL, FAST)])

    assert report.profile is not None
    assert not report.profile.was_idle


def test_a_pool_without_a_worker_is_a_problem_of_its_own() -> None:
    world = World()
    world.worker = ""
    reports = world.run([Target(MODEL, FAST), Target(MODEL, SLOW)])

    assert [report.profile for report in reports] == [None, None]
    assert "no worker" in reports[0].problem
    assert world.kept() == []
