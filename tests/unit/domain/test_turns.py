"""Which models keep their place when others wait for it."""

from __future__ import annotations

import pytest

from synapse.domain.job import SlaTier
from synapse.domain.load import DRAIN_S
from synapse.domain.turns import (
    LEAST_TURN_S,
    MOST_TURN_S,
    TURN_LOADS,
    Claim,
    Resident,
    Terms,
    terms,
    turn_s,
)

GOLD, SILVER, BRONZE = SlaTier
TURN_S = 8.0


def told(
    now: float, tier: SlaTier | None = BRONZE, claim: SlaTier = BRONZE, since: float = 0.0
) -> Terms:
    """About a model that was loaded at 0, for a claim that waits since then."""
    return terms(Claim("new", claim, since), [Resident("old", 0.0, TURN_S, tier)], now)


KEPT = Terms(frozenset({"old"}), frozenset())
YIELDS = Terms(frozenset(), frozenset({"old"}))
FREE = Terms(frozenset(), frozenset())


@pytest.mark.parametrize(("now", "answer"), [(0.0, KEPT), (TURN_S - 0.1, KEPT), (TURN_S, YIELDS)])
def test_a_model_with_work_keeps_its_place_for_its_turn(now: float, answer: Terms) -> None:
    assert told(now) == answer


@pytest.mark.parametrize(("now", "answer"), [(0.0, KEPT), (LEAST_TURN_S, FREE)])
def test_one_without_work_stays_for_the_moment_in_which_it_comes(now: float, answer: Terms) -> None:
    assert told(now, tier=None) == answer


@pytest.mark.parametrize(
    ("tier", "claim", "after_s"),
    [
        (BRONZE, GOLD, 0.0),
        (GOLD, GOLD, 0.0),
        (GOLD, SILVER, DRAIN_S[SILVER] - DRAIN_S[GOLD]),
        (GOLD, BRONZE, DRAIN_S[BRONZE] - DRAIN_S[GOLD]),
    ],
)
def test_the_better_tier_goes_first_but_not_for_ever(
    tier: SlaTier, claim: SlaTier, after_s: float
) -> None:
    since = TURN_S + 100.0
    if after_s:
        assert told(since + after_s - 0.1, tier, claim, since) == KEPT
    assert told(since + after_s, tier, claim, since) == YIELDS


def test_a_turn_is_so_many_loads() -> None:
    assert turn_s(0.1) == LEAST_TURN_S
    assert turn_s(10.0) == TURN_LOADS * 10.0
    assert turn_s(1000.0) == MOST_TURN_S
