"""One call of a worker while it runs: how long it may take, and what becomes known by it."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from synapse.application.lateness import Lateness
from synapse.application.patience import Patience, Size
from synapse.application.verdict import Verdict
from synapse.application.vitals import Vitals
from synapse.domain.breaker import Breaker
from synapse.domain.errors import (
    EngineError,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
    Unavailable,
)
from synapse.domain.expectation import Work
from synapse.domain.inference import Completion, Delta, Result
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.profile import Profile
from synapse.ports import ProfileStore

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Calls:
    """The calls of this process, by worker."""

    def __init__(
        self, vitals: Vitals, profiles: ProfileStore, patience: Patience | None = None
    ) -> None:
        self.vitals = vitals
        self.patience = patience or Patience()
        self._profiles = profiles
        self._open: defaultdict[tuple[str, str], dict[Call, None]] = defaultdict(dict)
        self._heard_at: defaultdict[tuple[str, str], dict[Breaker, float]] = defaultdict(dict)

    async def begin(self, model: ModelSpec, pool: Pool, size: Size, *, streams: bool) -> Call:
        """A call that is about to be made; it must be ended."""
        try:
            profile = await self._profiles.profile(model.name, model.version, pool.name)
        except Unavailable as error:
            logger.warning("profile not read: %s", error.message)
            profile = None
        place = (pool.name, pool.worker)
        self.vitals.outstanding[place] += size.items
        self.vitals.deaf.begin()
        call = Call(self, model, pool, size, profile, streams=streams)
        self._open[place][call] = None
        return call

    def ended(self, call: Call) -> None:
        """Count a call no more."""
        calls = self._open[call.place]
        calls.pop(call, None)
        self.vitals.outstanding[call.place] -= call.items
        self.vitals.deaf.end()
        if not calls:
            # Workers come and go: nothing is kept of those that nobody calls.
            del self._open[call.place], self.vitals.outstanding[call.place]
            self._heard_at.pop(call.place, None)

    def heard(self, call: Call, now: float) -> None:
        """Something came of a call, at that time of the loop's."""
        self._heard_at[call.place][call.breaker] = now

    def heard_at(self, call: Call) -> float:
        """When something came last of a call of the same model and worker."""
        return self._heard_at[call.place].get(call.breaker, float("-inf"))

    def fill_slots_before(self, call: Call) -> bool:
        """Whether calls that came before it, and are not late themselves, take all the slots."""
        items = 0
        for other in self._open[call.place]:
            if other is call:
                break
            if other.breaker is call.breaker and not other.times_late:
                items += other.items
        return items >= call.slots

    def break_off(self, worker: str, why: str, *, is_lost: bool = True) -> int:
        """End all calls of a worker; returns how many there were."""
        found = [
            call for place, calls in self._open.items() if place[1] == worker for call in calls
        ]
        for call in found:
            call.break_off(why, is_lost=is_lost)
        return len(found)

    def break_off_late(self, place: tuple[str, str], breaker: Breaker) -> None:
        """End the calls of a worker that does not answer: those that are late already."""
        for call in tuple(self._open[place]):
            if call.breaker is breaker and call.times_late:
                call.break_off("does not answer any more", is_late=True)

    def break_off_silent(self, place: tuple[str, str], breaker: Breaker) -> None:
        """End the calls of a worker that is silent while its neighbours answer."""
        for call in tuple(self._open[place]):
            if call.breaker is breaker:
                call.break_off_if_silent()

    def look_again(self, place: tuple[str, str], breaker: Breaker) -> None:
        """See which calls of a worker are late now that it is known to fail."""
        for call in tuple(self._open[place]):
            if call.breaker is breaker and not call.times_late:
                call.look_again()


class Call:
    """A call under way. What it was told decides, at its end, what it says of its worker."""

    def __init__(
        self,
        calls: Calls,
        model: ModelSpec,
        pool: Pool,
        size: Size,
        profile: Profile | None,
        *,
        streams: bool,
    ) -> None:
        vitals = calls.vitals
        self.place = (pool.name, pool.worker)
        self.breaker = vitals.breaker_of(model.name, pool)
        self.times_late = 0
        self._calls, self._clock, self._deaf = calls, vitals.clock, vitals.deaf
        self.items, self.slots = size.items, pool.slots_of(model)
        self._pool, self._size = pool, size
        self._profile, self._streams = profile, streams
        self._vitals = vitals.pool(model.name, pool.name)
        self._vitals.measure_by(profile)
        self._in_flight = self._most = vitals.outstanding[self.place]
        now = self._began_at = vitals.clock()
        if profile is not None and size.tier is not SlaTier.BRONZE:
            self._vitals.to_read.note(now, size.work.prompt_tokens)
        self._deaf_before_s = vitals.deaf()
        self._verdict = Verdict(self.breaker, self._vitals.breaker, now)
        self._first_at: float | None = None
        self._first_own_s = 0.0
        self._written = 0
        self._is_whole = False
        self._error: EngineError | None = None
        self._broken: EngineLost | EngineUnavailable | None = None
        self._tells_nothing = False
        self._limit: asyncio.Timeout | None = None
        self._loop = asyncio.get_running_loop()
        self._waits_since: float | None = None
        self._patience = calls.patience
        self._lateness = Lateness(
            size.work,
            self.slots,
            self._in_flight,
            profile,
            self._vitals,
            calls.patience,
            now,
            streams=streams,
        )
        self._late_s = self._lateness.late_after_s(self._most)
        self._watch(self._loop.time())

    async def wait_for(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What is asked for next of the call: a part of it, or all.

        Raises:
            EngineLost, EngineUnavailable: the call was broken off.
        """
        self._raise_if_broken()
        self._waits_since = self._loop.time()
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._limit = limit
                try:
                    return await ask()
                finally:
                    self._limit = None
        except TimeoutError:
            if limit.expired():
                self._raise_if_broken()
            raise
        finally:
            self._waits_since = None

    def _raise_if_broken(self) -> None:
        if self._broken is not None:
            raise self._broken

    def note(self, outcome: Result | EngineError) -> None:
        """An item has ended."""
        if isinstance(outcome, EngineError):
            if self._error is None or isinstance(self._error, InvalidInput):
                self._error = outcome
            return
        self._heard()
        self._is_whole = True
        if isinstance(outcome, Completion):
            # Its samples were written side by side: the time was that of one, not of them all.
            each = math.ceil(outcome.usage.completion_tokens / len(outcome.choices))
            self._written = max(self._written, each)

    def note_delta(self, delta: Delta) -> None:
        """A part of a generation has come."""
        self._heard()
        if self._first_at is None:
            self._first_at = self._clock()
            self._first_own_s = self._own_s(self._first_at)
        self._written += delta.completion_tokens
        self._is_whole = self._is_whole or delta.finish_reason is not None

    def _heard(self) -> None:
        self._calls.heard(self, self._loop.time())
        self._vitals.heard_at[self._pool.worker] = self._clock()

    def break_off(self, why: str, *, is_late: bool = False, is_lost: bool = True) -> None:
        """End it where it stands: whoever waits for it gets an EngineLost.

        If nothing `is_lost`, for the worker is taken away in good health, it is an
        EngineUnavailable, and says nothing of the worker.
        If it is for its lateness alone a stream of which nothing has come yet is as good as not
        begun: EngineUnavailable. Jobs are not streamed: what one hangs with may be the job itself.
        """
        if self._broken is not None:
            return
        self._tells_nothing = not is_lost
        is_lost = is_lost and not (is_late and self._streams and self._first_at is None)
        error = EngineLost if is_lost else EngineUnavailable
        self._broken = error(f"the worker of pool {self._pool.name!r} {why}")
        if self._limit is not None:
            self._limit.reschedule(self._loop.time())

    def break_off_if_silent(self) -> None:
        """End it if nothing but its worker's neighbours tells that it waits in vain.

        That was held against the worker already.
        """
        now = self._clock()
        if self._lateness.tells(now) or self._waits_for_slot or not self._was_in_vain(now):
            return
        self.break_off("does not answer any more", is_late=True)
        self._tells_nothing = True

    def end(self) -> None:
        """Nothing more comes of it."""
        self._timer.cancel()
        self._look_around()
        waited_for_slot = self._waits_for_slot
        self._calls.ended(self)
        now, error = self._clock(), self._error
        if self._tells_nothing:
            self._verdict.says_nothing()
        elif error is not None and not isinstance(error, InvalidInput | EngineTimeout):
            self._verdict.failed(now)
        elif self.times_late:
            self._verdict.says_nothing()
        elif self._is_whole or self._first_at is not None:
            self._measured(now)
        elif not isinstance(error, InvalidInput):
            # Its time was up, or its caller went away.
            was_closed = self.breaker.is_closed
            is_ill = not waited_for_slot and self._was_in_vain(now)
            if is_ill:
                self._verdict.in_doubt(now)
            else:
                self._verdict.says_nothing()
            if was_closed and not self.breaker.is_closed:
                self._calls.break_off_silent(self.place, self.breaker)
        elif error.param is None and type(error) is InvalidInput:
            # Nothing of the input is to blame by name: it may be the worker.
            self._verdict.in_doubt(now, answered=True)
        else:
            self._verdict.went_well(now)

    def _measured(self, now: float) -> None:
        """Note how long it took; too long counts against the worker, though not its pool."""
        took_s, judged_s = now - self._began_at, self._own_s(now)
        size, vitals = self._size.work, self._vitals
        work = Work(size.prompt_tokens, self._written)
        vitals.company.note(now, min(self._most, self.slots))
        if self._is_whole:
            vitals.took_ms.note(now, took_s * 1000)
            vitals.whole.note(now, took_s * 1000 / self._lateness.expected_ms(work, is_first=False))
        if self._first_at is not None:
            first_s, judged_s = self._first_at - self._began_at, self._first_own_s
            vitals.first.note(now, first_s * 1000 / self._lateness.expected_ms(work, is_first=True))
            if self._profile is None and self._size.tier is not SlaTier.BRONZE:
                vitals.crowding.note(now, self._in_flight, judged_s * 1000)
        if self._lateness.is_slow(judged_s, self._written):
            self._verdict.in_doubt(now, answered=True)
        else:
            self._verdict.went_well(now)

    def _was_in_vain(self, now: float) -> bool:
        """Whether one of which nothing came was waited for longer than a well worker needs.

        Where nothing tells how long that is, others of the pool do, of which something came
        meanwhile: a worker that hangs would have its share of all calls for as long as it does.
        """
        waited_s = self._own_s(now)
        if self._lateness.tells(now):
            return self._lateness.is_slow(waited_s, 0)
        is_long = waited_s >= self._patience.min_late_s
        return is_long and self._vitals.is_outlived(self._pool.worker, self._began_at)

    def _own_s(self, now: float) -> float:
        """How much of the time until now may be the worker's: when we are deaf, we are late."""
        return now - self._began_at - (self._deaf() - self._deaf_before_s)

    def _look_around(self) -> None:
        """See how much company there is by now."""
        self._most = max(self._most, self._calls.vitals.outstanding[self.place])

    @property
    def _waits_for_slot(self) -> bool:
        """Whether nothing can have come of it yet, since others have all the slots."""
        if self._most <= self.slots or self._first_at is not None or self._is_whole:
            return False
        return self._calls.fill_slots_before(self)

    @property
    def _is_failing(self) -> bool:
        return not self.breaker.is_closed and not self.breaker.is_mild

    def _silent_since(self, waits_since: float, now: float) -> float:
        """From when on the worker should have been heard of.

        Where there are more items than slots others are answered first, and how long each of them
        takes is not known: a worker from which they hear something does not hang. Nor does one
        that is silent to who waits for a slot, as long as those who have them may take their time.
        """
        if self._most <= self.slots:
            return waits_since
        if not self._is_failing and self._waits_for_slot:
            return now
        return max(waits_since, self._calls.heard_at(self))

    def _watch(self, since: float) -> None:
        """Look again when nothing has come for too long from then on."""
        self._due_at = since + self._late_s
        self._timer = self._loop.call_at(self._due_at, self._is_due)

    def look_again(self) -> None:
        """It may be late sooner than was thought."""
        self._timer.cancel()
        self._timer = self._loop.call_at(self._loop.time(), self._is_due)

    def _is_due(self) -> None:
        """It is late, unless it was heard of since, nobody listened, or nothing tells yet."""
        now, waits_since = self._loop.time(), self._waits_since
        is_deaf = waits_since is None or now - self._due_at >= self._patience.stall_s
        if waits_since is None or is_deaf or not self._lateness.tells(self._clock()):
            self._watch(now)
            return
        self._look_around()
        self._late_s = self._lateness.late_after_s(self._most)
        silent_since = self._silent_since(waits_since, now)
        if silent_since + self._late_s > now:
            self._watch(silent_since)
            return
        self.times_late += 1
        was_failing = self._is_failing
        self._verdict.failed(self._clock())
        if not self.breaker.is_closed:
            self._calls.break_off_late(self.place, self.breaker)
        if self._is_failing and not was_failing:
            self._calls.look_again(self.place, self.breaker)
        self._watch(now)
