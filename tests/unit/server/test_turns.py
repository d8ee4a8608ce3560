"""Models that do not fit beside each other, played through: all are served, and loads are few."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from synapse.adapters.local.demand import LocalStartTimes
from synapse.application.on_demand import OnDemand
from synapse.domain.job import SlaTier
from synapse.domain.load import DRAIN_S, ModelDemand, TierDemand
from synapse.domain.routing import PoolView
from synapse.domain.turns import LEAST_TURN_S, turn_s
from synapse.domain.worker import CacheLevel, Worker, WorkerModel, WorkerState
from synapse_server.model_loader import LocalModelLoader
from synapse_worker.agent.errors import NoRoom
from tests.factories import NOW, a_pool, a_worker

TICK_S = 0.5
SLOTS = 2
PAUSE_S = 1.0
POOL = a_pool("small", endpoint="", max_workers=4, loads_on_demand=True)


@dataclass
class Load:
    model: str
    keep: Collection[str]
    yielding: Collection[str]
    over: asyncio.Future[None]
    ends_at: float | None = None


@dataclass
class Machine:
    """A worker with room for `room` models, and the jobs that it works on, by when they end."""

    id: str
    room: int
    has: dict[str, float] = field(default_factory=dict)
    leaving: set[str] = field(default_factory=set)
    jobs: dict[str, list[float]] = field(default_factory=dict)
    load_under_way: Load | None = None

    @property
    def models(self) -> Collection[str]:
        return self.has

    def is_busy(self, model: str) -> bool:
        return bool(self.jobs.get(model))

    async def load(
        self,
        model: str,
        used_at: Mapping[str, float],
        keep: Collection[str],
        yielding: Collection[str],
    ) -> None:
        """See `Loading`."""
        over = asyncio.get_running_loop().create_future()
        self.load_under_way = Load(model, keep, yielding, over)
        try:
            await over
        finally:
            self.load_under_way = None


class Play:
    """Jobs of models and the workers that do them; `tick` by `tick`."""

    def __init__(self, workers: int, room: int, load_s: float, job_s: float) -> None:
        self.now = NOW
        self.machines = [Machine(f"s-{n}", room) for n in range(workers)]
        self.load_s, self.job_s = load_s, job_s
        self.queued: dict[tuple[str, SlaTier], int] = {}
        self.loads = 0
        self.waits: dict[str, float] = {}
        self.longest_s: dict[SlaTier, float] = {}
        self.starts = LocalStartTimes()
        loader = LocalModelLoader(self._machine, dict, self.starts, lambda: self.now)
        self.on_demand = OnDemand(loader, self.starts)

    async def tick(self) -> None:
        for machine in self.machines:
            self._work(machine)
        demands = [
            ModelDemand(model, {tier: TierDemand(count)})
            for (model, tier), count in self.queued.items()
        ]
        alive = [_worker(machine) for machine in self.machines]
        views = {model: [self._view(model, alive)] for model, _ in self.queued}
        self._note_waits(views)
        await self.on_demand.look(demands, views, alive, self.now)
        await _settled()
        for machine in self.machines:
            self._load(machine)
        await _settled()
        self.now += TICK_S

    def _machine(self, pool: str, worker: str) -> Machine:
        return next(each for each in self.machines if each.id == worker)

    def _work(self, machine: Machine) -> None:
        for jobs in machine.jobs.values():
            jobs[:] = [end for end in jobs if end > self.now]
        for model in machine.leaving.copy():
            if not machine.is_busy(model):
                machine.leaving.discard(model)
                machine.has.pop(model)
        for (model, tier), count in sorted(self.queued.items(), key=lambda each: each[0][1].rank):
            if model not in machine.has or model in machine.leaving:
                continue
            jobs = machine.jobs.setdefault(model, [])
            begun = min(count, SLOTS - len(jobs))
            jobs += [self.now + self.job_s] * begun
            self.queued[model, tier] -= begun

    def _load(self, machine: Machine) -> None:
        """As an agent does: room first, once those that yield have answered, then the load."""
        load = machine.load_under_way
        if load is None:
            return
        if load.ends_at is None and not machine.leaving:
            over = len(machine.has) + 1 - machine.room
            free = [m for m in machine.has if not machine.is_busy(m) and m not in load.keep]
            busy = [m for m in machine.has if machine.is_busy(m) and m in load.yielding]
            if over > len(free) + len(busy):
                load.over.set_exception(NoRoom("There is no room"))
                return
            machine.leaving |= set([*free, *busy][: max(0, over)])
            if not machine.leaving:
                load.ends_at = self.now + self.load_s
                self.loads += 1
        if load.ends_at is not None and self.now >= load.ends_at:
            machine.has[load.model] = self.now
            load.over.set_result(None)

    def _view(self, model: str, alive: list[Worker]) -> PoolView:
        ready = sum(worker.has(model) for worker in alive)
        under_way = sum(len(machine.jobs.get(model, ())) for machine in self.machines)
        return PoolView(
            POOL, SLOTS, ready, in_flight=under_way, seconds_per_item=self.job_s / SLOTS
        )

    def _note_waits(self, views: Mapping[str, list[PoolView]]) -> None:
        for model, tier in self.queued:
            if self.queued[model, tier] == 0 or views[model][0].ready:
                self.waits.pop(model, None)
                continue
            since = self.waits.setdefault(model, self.now)
            longest_s = max(self.longest_s.get(tier, 0.0), self.now - since)
            self.longest_s[tier] = longest_s

    @property
    def is_done(self) -> bool:
        return not any(self.queued.values()) and not any(
            machine.is_busy(model) for machine in self.machines for model in machine.jobs
        )


async def _settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def _worker(machine: Machine) -> Worker:
    there = [model for model in machine.has if model not in machine.leaving]
    busy = any(machine.jobs.values())
    return a_worker(
        machine.id,
        POOL.name,
        state=WorkerState.INFERRING if busy else WorkerState.READY,
        models=tuple(WorkerModel(model, "1", CacheLevel.GPU_RESIDENT) for model in there),
    )


def played(play: Play, most_s: float) -> Play:
    async def through() -> None:
        while not play.is_done and play.now < NOW + most_s:
            await play.tick()

    asyncio.run(through())
    return play


def test_six_that_take_turns_are_loaded_once_each() -> None:
    play = Play(workers=1, room=2, load_s=1.5, job_s=0.2)
    play.queued = {(f"m{n}", SlaTier.BRONZE): 20 for n in range(6)}

    assert played(play, 200.0).is_done
    assert play.loads == 6


def test_a_busy_model_makes_way_for_one_of_a_better_tier_after_its_turn() -> None:
    play = Play(workers=1, room=1, load_s=1.5, job_s=0.5)
    play.queued = {("m0", SlaTier.BRONZE): 400}
    played(play, 4.0)
    play.queued["m1", SlaTier.GOLD] = 1

    assert not played(play, 30.0).is_done
    assert play.queued["m1", SlaTier.GOLD] == 0
    assert play.longest_s[SlaTier.GOLD] <= turn_s(play.load_s) + 2 * play.load_s


def test_two_workers_take_two_models_and_not_one_of_them_twice() -> None:
    play = Play(workers=2, room=1, load_s=1.5, job_s=0.5)
    play.queued = {("m0", SlaTier.BRONZE): 60, ("m1", SlaTier.BRONZE): 60}

    assert played(play, 60.0).is_done
    assert play.loads == 2


@settings(deadline=None, max_examples=30)
@given(
    workers=st.integers(1, 3),
    room=st.integers(1, 3),
    load_s=st.floats(0.5, 20.0),
    job_s=st.integers(1, 20).map(lambda ticks: ticks * TICK_S),
    work=st.lists(
        st.tuples(st.sampled_from(list(SlaTier)), st.integers(1, 60)), min_size=1, max_size=6
    ),
)
def test_all_are_served_in_bounded_time_by_few_loads(
    workers: int, room: int, load_s: float, job_s: float, work: list[tuple[SlaTier, int]]
) -> None:
    play = Play(workers, room, load_s, job_s)
    play.queued = {(f"m{n}", tier): count for n, (tier, count) in enumerate(work)}
    # What the jobs take one worker, and a load for each turn of that; nobody waits beside it.
    work_s = sum((count + SLOTS) / SLOTS * job_s for _, count in work)
    # A load counts with the wait for those that made way.
    change_s = load_s + job_s + PAUSE_S + 2 * TICK_S
    one_s = turn_s(change_s) + change_s + LEAST_TURN_S + 2 * TICK_S
    turns = len(work) + work_s / turn_s(load_s)

    assert played(play, work_s + turns * one_s).is_done
    assert play.loads <= turns + workers, "each has a turn's work behind it, or the last of it"
    for tier, waited_s in play.longest_s.items():
        assert waited_s <= DRAIN_S[tier] + len(work) * one_s
