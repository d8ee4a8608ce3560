"""The machines of all pools: they start in their time, are drained, and are paid for meanwhile."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.simulator.events import Events
from bench.simulator.facts import Draws, Timed
from bench.simulator.machine import Machine, Pace
from synapse.domain.cost import MachineHours
from synapse.domain.pool import Pool


@dataclass(frozen=True, slots=True)
class Kind:
    """A pool of machines: the product's `pool`, and what the product does not know.

    `work` is the median and the 99th percentile of an item of each model on a machine of its own,
    `way` what its call takes besides, as far as that is told apart.
    """

    pool: Pool
    pace: Pace
    start: Draws
    work: Mapping[str, Timed]
    way: Mapping[str, Timed] = field(default_factory=dict)


@dataclass(slots=True)
class Unit:
    """One machine, from the moment it is asked for to the moment it is no longer paid."""

    id: str
    kind: Kind
    asked_at: float
    machine: Machine
    up_at: float | None = None
    is_leaving: bool = False
    gone_at: float | None = None

    @property
    def is_up(self) -> bool:
        """Whether it takes new items."""
        return self.up_at is not None and not self.is_leaving

    def gone(self, now: float) -> float:
        """Until when it is paid, as far as is known."""
        return now if self.gone_at is None else self.gone_at


@dataclass(frozen=True, slots=True)
class Usage:
    """What a pool came to: machine-seconds paid and worked, dollars, and the most machines.

    `starting_s` of what is paid passed before a machine was up.
    """

    paid_s: float
    busy_s: float
    starting_s: float
    usd: float
    most: int

    @property
    def hours(self) -> MachineHours:
        """By what the machines did."""
        idle_s = self.paid_s - self.starting_s - self.busy_s
        return MachineHours(self.busy_s / 3600, self.starting_s / 3600, idle_s / 3600)


@dataclass(slots=True)
class Pools:
    """Every machine there is or was. `on_up` and `on_leaving` are told of each."""

    events: Events
    chance: random.Random
    kinds: Sequence[Kind]
    on_up: Callable[[Unit], None] = lambda unit: None
    on_leaving: Callable[[Unit], None] = lambda unit: None
    on_start: Callable[[Unit], None] = lambda unit: None
    sizes: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    """By pool: how many machines were paid for since when."""
    last_up_at: float = 0.0
    _units: dict[str, list[Unit]] = field(default_factory=dict)
    _gone: list[Unit] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def units(self, pool: str) -> list[Unit]:
        """Those that are paid for at present."""
        return self._units.setdefault(pool, [])

    def up(self, pool: str) -> list[Unit]:
        """Those that take new items."""
        return [unit for unit in self.units(pool) if unit.is_up]

    def staying(self, pool: str) -> list[Unit]:
        """Those that are up or on their way."""
        return [unit for unit in self.units(pool) if not unit.is_leaving]

    def resize(self, kind: Kind, wanted: int, *, at_once: bool = False) -> None:
        """Ask for so many; those that start go first where there are too many, then the idle."""
        staying = self.staying(kind.pool.name)
        for _ in range(wanted - len(staying)):
            self._start(kind, at_once=at_once)
        dispensable = sorted(staying, key=lambda unit: (unit.is_up, unit.machine.load))
        for unit in dispensable[: max(0, len(staying) - wanted)]:
            self._leave(unit)

    def usage(self, pool: str) -> Usage:
        """What it came to up to now."""
        mine = [*self.units(pool), *(unit for unit in self._gone if unit.kind.pool.name == pool)]
        now = self.events.now
        paid_s = sum(u.gone(now) - u.asked_at for u in mine)
        starting_s = sum((u.gone(now) if u.up_at is None else u.up_at) - u.asked_at for u in mine)
        [price] = [k.pool.price_per_hour_usd for k in self.kinds if k.pool.name == pool]
        most = max((size for _, size in self.sizes.get(pool, ())), default=0)
        busy_s = sum(u.machine.busy_s for u in mine)
        return Usage(paid_s, busy_s, starting_s, paid_s * price / 3600, most)

    def usages(self) -> Mapping[str, Usage]:
        """Of all pools, by name."""
        return {kind.pool.name: self.usage(kind.pool.name) for kind in self.kinds}

    def _start(self, kind: Kind, *, at_once: bool) -> None:
        name = kind.pool.name
        machine = Machine(self.events, kind.pace)
        unit = Unit(f"{name}-{next(self._numbers):05}", kind, self.events.now, machine)
        self.units(name).append(unit)
        self._note(name)
        if at_once:
            self._came_up(unit)
            return
        self.on_start(unit)
        self.events.after(kind.start.draw(self.chance), lambda: self._came_up(unit))

    def _came_up(self, unit: Unit) -> None:
        if not unit.is_leaving:
            unit.up_at = self.last_up_at = self.events.now
            self.on_up(unit)

    def _leave(self, unit: Unit) -> None:
        unit.is_leaving = True
        self.on_leaving(unit)
        self._look_if_done(unit)

    def _look_if_done(self, unit: Unit) -> None:
        if unit.machine.load:
            self.events.after(1.0, lambda: self._look_if_done(unit))
            return
        unit.gone_at = self.events.now
        self.units(unit.kind.pool.name).remove(unit)
        self._gone.append(unit)
        self._note(unit.kind.pool.name)

    def _note(self, pool: str) -> None:
        self.sizes.setdefault(pool, []).append((self.events.now, len(self.units(pool))))
