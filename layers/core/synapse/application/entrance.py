"""What a runner's jobs pass on their way to an engine that others use: counted, bronze by its room.

Bronze that finds no room waits for it at the runner, where items are over in a moment: if it went
away and came again, others would take what comes free between its two looks. And a slot that one of
its own leaves is taken over by the next in line, without a call: to count takes longer than such an
item does.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from synapse.application.in_line import Part, items_of, take_in_turn, take_just, take_what_fits
from synapse.application.side_by_side import all_ended
from synapse.application.waiting import BRIEF_S, WaitingPlaces
from synapse.application.windows import BronzeWindows
from synapse.domain.batching import Batch
from synapse.domain.errors import EngineUnavailable, Unavailable
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.window import Opening
from synapse.ports import Clock, Entry, InferenceRequest, InFlight

logger = logging.getLogger(__name__)

WAIT_S = 10.0
"""So long a batch waits for the next of its items to be let in."""

MOST_S = 30.0
"""And no longer in all: an Express execution ends after 300 s, and tries a pool four times."""

PATIENCE_S = 5.0
"""So long a job of several samples waits for slots for all of them; then any room will do."""

LOOK_EVERY_S = 0.02

WIDE_OPEN = Opening(slots=sys.maxsize, limit=sys.maxsize, in_flight=0)
"""Jobs of the better tiers are never refused: they have waited already."""


Counted = tuple[bool, Entry | None]
"""Whether a part may begin, and how it is counted."""

SideBySide = Callable[[Sequence[Awaitable[Counted]]], Awaitable[Sequence[Counted]]]
Begin = Callable[[Part, Entry | None], None]
"""Has a part asked for, which is counted so; None if it could not be."""


IsOver = Callable[[InferenceRequest], bool]
"""Whether the time of a request is up."""


def _nobody(part: Part, entry: Entry | None) -> None:
    raise AssertionError("nobody is in line")


def _never(request: InferenceRequest) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Entrance:
    """Opens a gate for each batch."""

    windows: BronzeWindows
    in_flight: InFlight
    places: WaitingPlaces
    clock: Clock
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    side_by_side: SideBySide = all_ended

    @asynccontextmanager
    async def gate(self, spec: ModelSpec, pool: Pool, batch: Batch) -> AsyncIterator[Gate]:
        """The gate of a batch, for as long as the batch runs.

        Raises:
            EngineUnavailable: no worker is up, or none of the batch may begin now or soon.
        """
        gate = Gate(self, spec, pool, batch.sla, batch.slots, self.clock())
        try:
            await gate.look()
            yield gate
        finally:
            await gate.close()


@dataclass(slots=True)
class Gate:
    """Where the requests of one batch are let in, as they find room.

    `most` is how many items of its jobs may be claimed: all, if those that find no room may wait.
    `slots` are those of the pool, None where that could not be told.
    """

    _entrance: Entrance
    spec: ModelSpec
    pool: Pool
    tier: SlaTier
    most: int
    opened_at: float
    has_waited: bool = False
    slots: int | None = None
    _size: int = field(init=False)
    _let_in_at: float = field(init=False)
    """When one was let in last."""
    _waits: bool | None = None
    """Whether those that find no room wait; None until that was asked."""
    _waiting: Entry | None = None
    """The place in which they do."""
    _line: deque[Part] = field(default_factory=deque)
    _begin: Begin = _nobody
    _too_many: int = 0
    """How many more were in flight than may be at the last look, and what came and went since."""
    _is_shut: bool = False

    def __post_init__(self) -> None:
        self._size, self._let_in_at = self.most, self.opened_at

    async def look(self) -> None:
        """Find out how many may be claimed; raises as `Entrance.gate` does."""
        try:
            room = await self._entrance.windows.may_begin(self.spec, self.pool, self.tier)
            self.slots = await self._entrance.windows.slots(self.spec, self.pool)
        except Unavailable as error:
            logger.warning("slots not counted: %s", error.message)
            return
        if room is None or room >= self.most or await self._may_wait():
            return
        if room <= 0:
            raise EngineUnavailable(f"pool {self.pool.name!r} is full, or kept for better tiers")
        self.most = room

    async def let_in(self, parts: Sequence[Part], begin: Begin, is_over: IsOver = _never) -> None:
        """Begin the parts in their order, as there is room; one may be divided.

        What finds none, at once or after a wait where that is worth it, is left out. A count that
        fails stops nobody. Each that was begun is to `leave`. What `is_over` while it waits is
        begun at once, and not counted: who begins it ends it, and asks no engine.

        Raises:
            EngineUnavailable: no worker is up any more.
        """
        self._line, self._begin = deque(parts), begin
        try:
            while self._line:
                await self._enter(self._line[0])
                if not self._line or not await self._may_wait() or self._is_over():
                    break
                self.has_waited = True
                await self._entrance.sleep(LOOK_EVERY_S)
                self._let_go(is_over)
        finally:
            self._line.clear()

    async def leave(self, entry: Entry | None) -> None:
        """The engine is done with what entered together: the next in line has its slots.

        Unless better tiers want them, as far as was seen a moment ago. Raises nothing.
        """
        if entry is None:
            return
        if self._may_keep(entry):
            part = take_just(self._line, entry.items)
            if part:
                self._start(part, entry)
                return
        self._too_many -= entry.items
        await self._entrance.in_flight.leave(entry)

    def shut(self) -> None:
        """Let nobody in any more: those in line are left out, and those who are being counted."""
        self._is_shut = True
        self._line.clear()

    async def close(self) -> None:
        """Nobody waits here any more. Raises nothing."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            await self._entrance.in_flight.leave(waiting)

    def _may_keep(self, entry: Entry) -> bool:
        is_counted = entry.expires_at >= self._entrance.clock() + 2 * BRIEF_S
        return bool(self._waits) and self._too_many <= 0 and is_counted

    def _start(self, part: Part, entry: Entry | None) -> None:
        self._let_in_at = self._entrance.clock()
        self._begin(part, entry)

    async def _enter(self, first: Part) -> None:
        """Begin as many of the line as there is room for; it may move on meanwhile."""
        opening = WIDE_OPEN
        try:
            if self.tier is SlaTier.BRONZE:
                opening = await self._opening(first[0].input.samples)
        except Unavailable as error:
            logger.warning("room not told: %s", error.message)
            if self._waits:
                return  # all who wait would begin at once; they can look again
        take = take_what_fits if await self._is_patient(opening.room) else take_in_turn
        chosen = take(self._line, opening.room)
        room, counts = opening.room, []
        for part in chosen:
            room -= items_of(part)
            counts.append(self._counted(part, opening.limit + max(0, -room)))
        counted = await self._entrance.side_by_side(counts)
        refused: list[Part] = []
        for part, (may_begin, entry) in zip(chosen, counted, strict=True):
            if entry is not None:
                self._too_many += entry.items
            if self._is_shut:
                await self.leave(entry)
            elif may_begin:
                self._start(part, entry)
            else:
                refused.append(part)
        if not self._is_shut:
            self._line.extendleft(reversed(refused))

    async def _is_patient(self, room: int) -> bool:
        """Whether jobs of several samples wait until there are slots for all of one.

        Not for ever: where there are always others there never are so many at once.
        """
        samples = [request.input.samples for part in self._line for request in part]
        if max(samples, default=1) == 1 or sum(samples) <= room:
            return True
        waited_s = self._entrance.clock() - self.opened_at
        return waited_s < PATIENCE_S and await self._may_wait()

    async def _opening(self, items: int) -> Opening:
        """What so many items of bronze find that are next in line."""
        opening = await self._entrance.windows.opening(self.spec, self.pool, items)
        if opening.slots == 0:
            raise EngineUnavailable(f"no worker of pool {self.pool.name!r} is up any more")
        self._too_many = opening.too_many
        return opening

    async def _counted(self, part: Part, limit: int) -> Counted:
        expires_at = self._entrance.clock() + max(request.timeout_s for request in part)
        try:
            entry = await self._entrance.in_flight.enter(
                self.spec.name, self.pool.name, items_of(part), limit, expires_at, self.tier
            )
        except Unavailable as error:
            logger.warning("requests not counted: %s", error.message)
            return True, None
        return entry is not None, entry

    def _let_go(self, is_over: IsOver) -> None:
        """Begin those in line that are over; the others keep their places."""
        waiting, self._line = self._line, deque()
        for part in waiting:
            over = [request for request in part if is_over(request)]
            left = [request for request in part if request not in over] if over else part
            if over:
                self._begin(over, None)
            if left:
                self._line.append(left)

    def _is_over(self) -> bool:
        now = self._entrance.clock()
        return now - self._let_in_at >= WAIT_S or now - self.opened_at >= MOST_S

    async def _may_wait(self) -> bool:
        """Whether this batch waits for room. Not where many wait already, or items last long."""
        if self._waits is None:
            places, until = self._entrance.places, self.opened_at + MOST_S
            try:
                if self.tier is SlaTier.BRONZE:
                    self._waiting = await places.take(self.spec, self.pool, self._size, until)
            except Unavailable as error:
                logger.warning("nobody waits: %s", error.message)
            self._waits = self._waiting is not None
        return self._waits
