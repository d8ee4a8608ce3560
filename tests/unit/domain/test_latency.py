"""Quantiles of the last samples: exact, whatever came and went."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.latency import Latencies, Quantiles

SAMPLES = st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 1e6)), min_size=1, max_size=200)


def of(values: list[float]) -> Quantiles | None:
    """By the definition: the smallest value that so large a share does not exceed."""
    if not values:
        return None
    ranked = sorted(values)
    p50, p95, p99 = (ranked[math.ceil(q * len(ranked)) - 1] for q in (0.5, 0.95, 0.99))
    return Quantiles(len(ranked), p50, p95, p99)


@given(SAMPLES, st.floats(0.0, 200.0), st.integers(1, 50))
def test_quantiles_are_those_of_the_last_samples_in_the_window(
    samples: list[tuple[float, float]], later_s: float, most: int
) -> None:
    latencies = Latencies(window_s=60.0, max_samples=most)
    noted, now = [], 0.0
    for pause_s, value in samples:
        now += pause_s
        latencies.note(now, value)
        noted.append((now, value))
    now += later_s

    found = latencies.quantiles(now)

    assert found == of([value for at, value in noted[-most:] if at > now - 60.0])


def test_nothing_is_told_before_anything_was_noted_and_after_all_is_stale() -> None:
    latencies = Latencies(window_s=10.0)
    assert latencies.quantiles(0.0) is None

    latencies.note(1.0, 5.0)

    assert latencies.quantiles(10.9) == Quantiles(1, 5.0, 5.0, 5.0)
    assert latencies.quantiles(11.0) is None


def test_the_share_between_two_times_is_that_of_what_was_noted_lately() -> None:
    latencies = Latencies()
    latencies.note(0.0, 45.0)
    for at, value in enumerate((10.0, 20.0, 30.0, 50.0)):
        latencies.note(30.0 + at, value)

    assert latencies.share(40.0, above=20.0, up_to=50.0) == 0.6
    assert latencies.share(40.0 + 30.0, above=20.0, up_to=50.0) == 0.5
    assert Latencies().share(0.0, above=0.0, up_to=1.0) is None
