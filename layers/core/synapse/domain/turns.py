"""Which models have their turn in the memory of workers that do not hold all that is asked for.

A model that work waits for and that no worker has lays a claim. Claims are met by when they are
due, the better tier's sooner, and later none is overtaken for ever. A model that was loaded keeps
its place for its turn as long as it has work, so that what loads cost stays a share of what is
done; then it makes way for a claim that is due before its own would be if it came again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from synapse.domain.job import SlaTier
from synapse.domain.load import DRAIN_S

LEAST_TURN_S = 2.0
"""For so long a model that was just loaded stays, whatever is known of its work: it comes now."""

TURN_LOADS = 4.0
"""A turn is so many times as long as a load: a fifth of the time goes to loads, at the most."""

MOST_TURN_S = 300.0
"""However long a load takes, nobody waits longer for the turn of one other."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A model that nobody has, since when work of this tier (the best of it) waits for that."""

    model: str
    tier: SlaTier
    since: float

    @property
    def due_at(self) -> float:
        """When it should be met: claims are, in this order."""
        return self.since + DRAIN_S[self.tier]


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that a worker has `since` then; `tier` is the best of its work, None: it has none."""

    model: str
    since: float
    turn_s: float
    tier: SlaTier | None = None

    def stays(self, now: float) -> bool:
        """Whether it has its turn still."""
        return now - self.since < (LEAST_TURN_S if self.tier is None else self.turn_s)

    def yields(self, claim: Claim, now: float) -> bool:
        """Whether it makes way although it has work: its turn is over, and the claim comes first.

        One without work makes way anyway.
        """
        if self.tier is None or self.stays(now):
            return False
        return claim.due_at <= Claim(self.model, self.tier, since=now).due_at


class Terms(NamedTuple):
    """Whose place a load may take: not that of those to `keep`, busy or not.

    Of the others those that nothing is asked of, and those `yielding` even while they are busy.
    """

    keep: frozenset[str]
    yielding: frozenset[str]


def turn_s(load_s: float) -> float:
    """How long a model may stay that takes so long to load, if it has work."""
    return min(MOST_TURN_S, max(LEAST_TURN_S, TURN_LOADS * load_s))


def terms(claim: Claim, residents: Iterable[Resident], now: float) -> Terms:
    """What a worker with these models may do for a claim."""
    residents = list(residents)
    yielding = {each.model for each in residents if each.yields(claim, now)}
    keep = {each.model for each in residents if each.tier is not None or each.stays(now)}
    return Terms(frozenset(keep - yielding), frozenset(yielding))
