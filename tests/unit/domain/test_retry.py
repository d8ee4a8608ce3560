"""Exponential backoff with full jitter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.retry import RetryPolicy

POLICIES = st.builds(RetryPolicy, base_s=st.floats(0.001, 10), max_s=st.floats(0.001, 100))
DRAWS = st.floats(0, 1, exclude_max=True)
FAILURES = st.integers(1, 500)


def test_the_ceiling_doubles_up_to_the_maximum() -> None:
    policy = RetryPolicy(base_s=0.5, max_s=3.0)

    assert [policy.delay_s(failures, 1.0) for failures in range(1, 6)] == [0.5, 1, 2, 3, 3]


@given(POLICIES, FAILURES, DRAWS)
def test_a_delay_is_never_negative_nor_past_the_maximum(
    policy: RetryPolicy, failures: int, draw: float
) -> None:
    assert 0 <= policy.delay_s(failures, draw) <= policy.max_s


@given(POLICIES, FAILURES)
def test_the_whole_range_is_used(policy: RetryPolicy, failures: int) -> None:
    assert policy.delay_s(failures, 0.0) == 0
    assert policy.delay_s(failures, 0.5) * 2 == policy.delay_s(failures, 1.0)


@given(POLICIES, FAILURES, DRAWS)
def test_later_failures_never_wait_less_for_the_same_draw(
    policy: RetryPolicy, failures: int, draw: float
) -> None:
    assert policy.delay_s(failures + 1, draw) >= policy.delay_s(failures, draw)
