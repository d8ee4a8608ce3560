"""A new key never has more than its maker."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.access import ALL_SCOPES, Limits, Scope
from synapse.domain.errors import Forbidden
from synapse.domain.job import SlaTier
from synapse.domain.rights import Rights, granted

ALL = Rights(ALL_SCOPES)
SOME = Rights(
    scopes=frozenset({Scope.ADMIN, Scope.INFERENCE}),
    models=frozenset({"echo", "smollm2"}),
    tiers=frozenset({SlaTier.SILVER, SlaTier.BRONZE}),
    limits=Limits(60, 1000, 4, 512, 10.0),
    expires_at=1000.0,
)
LESS = Rights(
    scopes=frozenset({Scope.INFERENCE}),
    models=frozenset({"echo"}),
    tiers=frozenset({SlaTier.BRONZE}),
    limits=Limits(30, 500, 2, 256, 5.0),
    expires_at=500.0,
)


def test_what_has_all_gives_what_is_wished() -> None:
    assert granted(SOME, ALL) == SOME
    assert granted(ALL, ALL) == ALL


def test_less_is_given_as_it_is_wished() -> None:
    assert granted(LESS, SOME) == LESS


def test_where_the_wish_has_no_bound_the_maker_s_holds() -> None:
    wish = Rights(frozenset({Scope.INFERENCE}))

    assert granted(wish, SOME) == replace(SOME, scopes=wish.scopes)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"scopes": ALL_SCOPES}, "scopes: batches, usage"),
        ({"models": frozenset({"echo", "other"})}, "models: other"),
        ({"tiers": frozenset(SlaTier)}, "tiers: gold"),
        ({"limits": Limits(requests_per_minute=61)}, "limits.requests_per_minute: 61"),
        ({"limits": Limits(tokens_per_minute=1001)}, "limits.tokens_per_minute: 1001"),
        ({"limits": Limits(concurrent_jobs=5)}, "limits.concurrent_jobs: 5"),
        ({"limits": Limits(max_tokens_per_request=513)}, "limits.max_tokens_per_request: 513"),
        ({"limits": Limits(monthly_usd=10.01)}, "limits.monthly_usd: 10.01"),
        ({"expires_at": 1000.5}, "expires_in_s"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_more_is_refused_and_named(more: dict[str, object], named: str) -> None:
    with pytest.raises(Forbidden, match="more than") as refused:
        granted(replace(LESS, **more), SOME)  # type: ignore[arg-type]

    assert refused.value.message.startswith(named)
    assert refused.value.code == "more_than_its_maker"


def sets(values: list[str]) -> st.SearchStrategy[frozenset[str] | None]:
    return st.none() | st.frozensets(st.sampled_from(values))


def bounds() -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(1, 3)


rights = st.builds(
    Rights,
    scopes=st.frozensets(st.sampled_from(Scope)),
    models=sets(["a", "b", "c"]),
    tiers=st.none() | st.frozensets(st.sampled_from(SlaTier)),
    limits=st.builds(Limits, bounds(), bounds(), bounds(), bounds(), bounds()),
    expires_at=bounds(),
)


def within(part: Rights, whole: Rights) -> bool:
    """Whether nothing is allowed by the part that the whole does not allow."""
    named = [(part.models, whole.models), (part.tiers, whole.tiers)]
    numbers = [(part.expires_at, whole.expires_at)]
    for field in fields(Limits):
        numbers.append((getattr(part.limits, field.name), getattr(whole.limits, field.name)))
    return (
        part.scopes <= whole.scopes
        and all(w is None or (p is not None and set(p) <= set(w)) for p, w in named)
        and all(w is None or (p is not None and p <= w) for p, w in numbers)
    )


@given(rights, rights)
def test_whatever_is_given_is_within_what_the_maker_has(wish: Rights, maker: Rights) -> None:
    try:
        given_ = granted(wish, maker)
    except Forbidden:
        assert not within(wish, maker)
    else:
        assert within(given_, maker)
        assert within(given_, wish)
