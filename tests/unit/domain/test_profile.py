"""A profile's predictions: they never fall with size or company, and never below an item alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.profile import Profile, slowdown

COUNTS = st.integers(0, 4096)
PROFILES = st.builds(
    Profile,
    model=st.just("echo"),
    version=st.just("1"),
    pool=st.just("cpu"),
    accelerator=st.just("cpu"),
    base_ms=st.floats(0.1, 1e4),
    prompt_token_ms=st.floats(0.0, 10.0),
    output_token_ms=st.floats(0.0, 100.0),
    company=st.floats(0.0, 2.0),
    spread=st.floats(1.0, 10.0),
    saturates_at=st.integers(0, 64),
    first_company=st.none() | st.floats(0.0, 2.0),
    first_spread=st.none() | st.floats(1.0, 10.0),
)


def a_profile(**fields: float) -> Profile:
    return Profile("echo", "1", "cpu", "cpu", base_ms=10.0, **fields)  # type: ignore[arg-type]


@given(PROFILES, COUNTS, COUNTS, COUNTS)
def test_more_tokens_and_more_company_never_make_an_item_quicker(
    profile: Profile, prompt: int, output: int, n: int
) -> None:
    now = profile.p99_ms(prompt, output, n)

    assert profile.alone_ms(prompt, output) <= profile.p50_ms(prompt, output, n) <= now
    assert now <= profile.p99_ms(prompt + 1, output, n) * (1 + 1e-12)
    assert now <= profile.p99_ms(prompt, output + 1, n) * (1 + 1e-12)
    assert now <= profile.p99_ms(prompt, output, n + 1) * (1 + 1e-12)
    assert profile.first_p50_ms(prompt, n) <= profile.first_p99_ms(prompt, n)


def test_beyond_saturation_items_take_turns() -> None:
    assert [slowdown(n, 0.0, 4) for n in (0, 1, 4, 5, 8)] == [1, 1, 1, 1.25, 2]
    assert [slowdown(n, 0.5, 2) for n in (1, 2, 4)] == [1, 1.5, 3]


def test_without_saturation_company_goes_on_as_it_began() -> None:
    assert a_profile(company=0.5).p50_ms(0, 0, 9) == 50.0


def test_a_first_token_takes_the_prompts_time_in_a_company_of_its_own() -> None:
    profile = a_profile(
        prompt_token_ms=1.0, output_token_ms=5.0, company=0.1, first_company=1.0, first_spread=3.0
    )

    assert profile.first_p50_ms(90, 1) == 100.0
    assert profile.first_p50_ms(90, 3) == 300.0
    assert profile.first_p99_ms(90, 3) == 900.0


def test_where_no_first_token_was_measured_it_keeps_the_company_of_the_whole() -> None:
    profile = a_profile(company=0.5, spread=2.0)

    assert profile.first_p50_ms(0, 3) == 20.0
    assert profile.first_p99_ms(0, 3) == pytest.approx(40.0)
