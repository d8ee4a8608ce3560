"""How much bronze may be in flight in a pool beside gold and silver: idle slots, and no more.

Bronze has the slots that better tiers leave. Those that they are likely to want are kept free for
them: as many as they had at once in the last minute, and one more; one beside those in flight
where items are brief, because as soon as it is taken another one ends. Where nobody better was seen
for a minute bronze has everything; in a pool where nothing else is in flight one item of bronze
always may run, so that it never stands still for good.

No slots are kept where items are so short that an urgent one keeps its promise though it finds
every slot taken: it is the next to get one. And company is limited further where it is what would
break the promise, because the items of a worker share its cores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from synapse.domain.job import SlaTier

AT_STAKE = 0.01
"""The share of better tiers' answers that bronze may make late."""

LOOK_BACK_S = 60.0
"""For how long it is remembered what the better tiers had in flight."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is in flight of a model in a pool.

    `better` items of gold and silver and `bronze` ones; `peak` is the most that the better tiers
    had at once in the last minute, 0 if none were seen; `best` is the best tier seen in it.
    """

    better: int = 0
    bronze: int = 0
    peak: int = 0
    best: SlaTier = SlaTier.BRONZE

    @property
    def in_flight(self) -> int:
        """Of all tiers."""
        return self.better + self.bronze

    @property
    def wanted(self) -> int:
        """As many as the better tiers are likely to want."""
        return max(self.better, self.peak)


class Opening(NamedTuple):
    """What the next of bronze finds in a pool.

    `slots` are those of its workers that are up. Up to `limit` items of all tiers may be in flight
    there with it, and `in_flight` are.
    """

    slots: int
    limit: int
    in_flight: int

    @property
    def room(self) -> int:
        """How many more items of bronze may start now."""
        return max(0, -self.too_many)

    @property
    def too_many(self) -> int:
        """How many more are in flight than may be; below 0 if there is room."""
        return self.in_flight - self.limit


@dataclass(frozen=True, slots=True)
class Company:
    """What company does to a better tier's promise on one worker.

    `turns_over` says that an item keeps it though it waits for a slot until another has ended.
    Up to `most` items in flight keep it, itself counted; None if company makes no difference, or
    it is not to be kept anyway. Where items are brief they are gone before a peak is there: then
    what counts is what the better tiers have in flight now and the next to come, not what they had.
    """

    turns_over: bool = False
    most: int | None = None
    is_brief: bool = False


HARMLESS = Company()


def bronze_window(traffic: Traffic, slots: int, company: Company = HARMLESS, ready: int = 1) -> int:
    """How many items of bronze may be in flight in a pool.

    `slots` are those of its `ready` workers together.
    """
    wanted = traffic.wanted
    if slots <= 0 or wanted == 0:
        return max(0, slots)
    expected = kept = traffic.better + 1
    if not company.is_brief:
        expected, kept = wanted, wanted + 1
    window = slots - (traffic.better if company.turns_over else kept)
    if company.most is not None:
        window = min(window, company.most * ready - expected)
    return max(window, 1 if traffic.better == 0 else 0)


def bronze_opening(
    traffic: Traffic, slots: int, company: Company = HARMLESS, ready: int = 1, items: int = 0
) -> Opening:
    """What bronze finds: as much as its window leaves, and into free slots.

    Where nothing is in flight the next one, of so many `items`, may start however many they are.
    """
    window = bronze_window(traffic, slots, company, ready)
    least = items if traffic.in_flight == 0 else 0
    return Opening(slots, max(least, min(slots, traffic.better + window)), traffic.in_flight)


def turns_over(at_stake: float | None, p99_ms: float, holds_ms: float, promise_ms: float) -> bool:
    """Whether an item of a better tier may wait for a slot until another item has ended.

    `at_stake` is the share of answers lately that came in time, but would not have, had they waited
    for a slot. Where nothing was seen, the 99th percentile has to leave room for the whole time
    that an item holds its slot.
    """
    if at_stake is None:
        return p99_ms + holds_ms <= promise_ms
    return at_stake <= AT_STAKE


def company_of(
    p99_ms: Callable[[int], float],
    p50_alone_ms: float,
    slots: int,
    promise_ms: float,
) -> Company:
    """What company does on a worker with so many slots whose items do not turn over.

    Among n in flight an item of the better tier takes `p99_ms(n)` until its promise is kept (for
    text that is generated: until its first token), at the 99th percentile. It does not fall with n.
    """
    makes_a_difference = p99_ms(1) < p99_ms(slots)
    is_to_be_kept = p50_alone_ms <= promise_ms
    if p99_ms(slots) <= promise_ms or not makes_a_difference or not is_to_be_kept:
        return HARMLESS
    fits, breaks = 1, slots
    while breaks - fits > 1:
        middle = (fits + breaks) // 2
        if p99_ms(middle) <= promise_ms:
            fits = middle
        else:
            breaks = middle
    return Company(most=fits)


class Peak:
    """The most that better tiers had in flight in the last minute, and whether gold was in it."""

    def __init__(self) -> None:
        self._moments: deque[tuple[float, int]] = deque()
        self._gold_at = float("-inf")

    def note(self, now: float, count: int, tier: SlaTier) -> None:
        """So many were in flight just now, of which one of this tier came or went."""
        if tier is SlaTier.GOLD:
            self._gold_at = now
        # Only what nothing later outdoes is kept: the first is the most.
        while self._moments and self._moments[-1][1] <= count:
            self._moments.pop()
        self._moments.append((now, count))

    def traffic(self, now: float, better: int, bronze: int) -> Traffic:
        """With so many in flight now."""
        since = now - LOOK_BACK_S
        # What comes from the future was there before the clock was put back.
        while self._moments and not since < self._moments[0][0] <= now:
            self._moments.popleft()
        peak = max(better, self._moments[0][1] if self._moments else 0)
        best = SlaTier.BRONZE if peak == 0 else SlaTier.SILVER
        has_gold = since < self._gold_at <= now
        return Traffic(better, bronze, peak, SlaTier.GOLD if has_gold else best)
