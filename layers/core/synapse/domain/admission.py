"""Whether a caller who is on the line can be answered in time, judged before anything is sent.

Little's law, as for the wait of a job (`domain.estimate`): `slots` items in progress, each holding
its slot for s seconds, end at slots / s a second. Who joins behind more than that can serve in the
time the caller has is told so at once, and when to come back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from synapse.domain.estimate import ServiceRate
from synapse.domain.job import SlaTier
from synapse.domain.pace import Pace

MIN_RETRY_AFTER_S = 1
MAX_RETRY_AFTER_S = 120
"""Beyond this OpenAI's clients do not try again at all."""


@dataclass(frozen=True, slots=True)
class Load:
    """Items of a model in flight: those that its slots work on, and those that wait for one."""

    running: int
    waiting: int

    @staticmethod
    def of(in_flight: int, slots: int) -> Load:
        """How so many items in flight are spread."""
        return Load(min(in_flight, slots), max(0, in_flight - slots))


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request asks of a model: its items, how long its caller waits, and how it ranks.

    The caller of a stream waits until it starts, any other until the answer is whole.
    """

    items: int
    timeout_s: float
    tier: SlaTier = SlaTier.SILVER
    is_stream: bool = False


@dataclass(frozen=True, slots=True)
class Speed:
    """What is known of how fast a model is: slots, the mean slot time, and the cost of company."""

    slots: int
    rate: ServiceRate
    pace: Pace | None = None


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """How many items of a model may be in flight at once, counted with the newcomer's own.

    Who comes to an idle model is always admitted: no later moment would suit better; and so is
    what finds free slots, unless the pace tells that company slows it down too much. Until a
    model's speed was measured, `unmeasured_per_slot` items a slot are; `max_per_slot` bounds what
    may wait at a worker whatever time the callers have.
    """

    unmeasured_per_slot: int = 4
    max_per_slot: int = 256
    unmeasured_retry_after_s: int = 5

    def limit(self, demand: Demand, speed: Speed) -> int:
        """The most items in flight with which `demand` is still answered in time."""
        by_slots = self._limit_by_slots(demand, speed)
        if speed.pace is None or demand.is_stream:
            return by_slots
        return max(demand.items, math.floor(min(by_slots, speed.pace.most(demand.timeout_s))))

    def retry_after_s(self, demand: Demand, in_flight: int, speed: Speed) -> int:
        """When to ask again: as much must have ended as lies beyond the limit, in whole seconds."""
        per_item_s = speed.rate.seconds_per_item
        if per_item_s is None:
            return self.unmeasured_retry_after_s
        room_at = self.limit(demand, speed) - demand.items
        drained_s = max(0, in_flight - room_at) * per_item_s / speed.slots
        if speed.pace is not None:
            drained_s = max(drained_s, speed.pace.drain_s(in_flight, room_at))
        return min(MAX_RETRY_AFTER_S, max(MIN_RETRY_AFTER_S, math.ceil(drained_s)))

    def _limit_by_slots(self, demand: Demand, speed: Speed) -> int:
        slots = speed.slots
        at_once = max(slots, demand.items)
        if demand.tier is SlaTier.BRONZE:
            return at_once
        per_item_s = speed.rate.seconds_per_item
        if per_item_s is None:
            return max(at_once, slots * self.unmeasured_per_slot)
        spare_s = demand.timeout_s - (0.0 if demand.is_stream else per_item_s)
        most = slots * self.max_per_slot
        # Compared before it is divided: a model may be measured as taking no time at all.
        if spare_s * slots >= (most - slots) * per_item_s:
            return max(at_once, most)
        return max(at_once, slots + math.floor(spare_s * slots / per_item_s))


def slot_time_s(elapsed_s: float, ahead: int, items: int, slots: int) -> float:
    """The slot time of each item that took `elapsed_s` in all, some of it waiting at the engine.

    The inverse of the wait that Little's law foretells (`domain.estimate`): what a busy model is
    measured by must not contain the wait, or each busy minute would make the next one look slower.
    """
    return elapsed_s * slots / max(slots, ahead + items)
