"""Which models go when room is needed. Pure: sizes, times and budgets come from outside."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Held:
    """Something that takes room: a model on the disk, or one that is loaded.

    `last_used_at` and the times below are seconds of the same clock.
    """

    key: str
    size_bytes: int
    last_used_at: float
    in_use: bool = False
    pinned: bool = False

    @property
    def is_free_to_go(self) -> bool:
        """Whether it may be evicted at all."""
        return not (self.in_use or self.pinned)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to evict, in this order. `short_bytes` is what is missing even so.

    Where something is missing nothing is evicted: it would be lost and gain nothing.
    """

    evict: tuple[Held, ...] = ()
    short_bytes: int = 0

    @property
    def fits(self) -> bool:
        """Whether there is room once it is carried out."""
        return self.short_bytes == 0


def expired(held: Iterable[Held], now: float, ttl_s: float | None) -> list[Held]:
    """What nobody has used for `ttl_s`, longest unused first."""
    if ttl_s is None:
        return []
    due = (each for each in held if each.is_free_to_go and now - each.last_used_at > ttl_s)
    return sorted(due, key=_least_recent_first)


def room_for(needed_bytes: int, held: Sequence[Held], budget_bytes: int) -> Plan:
    """The least recently used that must go so that `needed_bytes` more stay within the budget."""
    over = sum(each.size_bytes for each in held) + needed_bytes - budget_bytes
    chosen: list[Held] = []
    for each in sorted((h for h in held if h.is_free_to_go), key=_least_recent_first):
        if over <= 0:
            break
        chosen.append(each)
        over -= each.size_bytes
    return Plan(tuple(chosen)) if over <= 0 else Plan(short_bytes=over)


def _least_recent_first(held: Held) -> tuple[float, str]:
    return held.last_used_at, held.key
