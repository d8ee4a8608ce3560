"""Bronze beside better tiers: never in their way, never at a standstill."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.job import SlaTier
from synapse.domain.window import (
    HARMLESS,
    LOOK_BACK_S,
    Company,
    Peak,
    Traffic,
    bronze_opening,
    bronze_window,
    company_of,
    turns_over,
)

COUNTS = st.integers(0, 64)
SLOTS = st.integers(1, 64)
COMPANIES = st.builds(Company, st.booleans(), st.none() | st.integers(1, 64), st.booleans())


@st.composite
def traffics(draw: st.DrawFn) -> Traffic:
    better = draw(COUNTS)
    peak = max(better, draw(COUNTS))
    best = draw(st.sampled_from([SlaTier.GOLD, SlaTier.SILVER])) if peak else SlaTier.BRONZE
    return Traffic(better, draw(COUNTS), peak, best)


@given(traffic=traffics(), slots=SLOTS)
def test_what_the_better_tiers_had_lately_and_one_more_is_kept_for_them(
    traffic: Traffic, slots: int
) -> None:
    window = bronze_window(traffic, slots)

    if traffic.peak:
        assert window + traffic.peak + 1 <= slots or window == (traffic.better == 0)


@given(traffic=traffics(), slots=SLOTS, company=COMPANIES)
def test_bronze_and_better_never_have_more_than_the_slots(
    traffic: Traffic, slots: int, company: Company
) -> None:
    started = bronze_opening(traffic, slots, company).room

    assert started >= 0
    assert started == 0 or traffic.in_flight + started <= slots
    assert started == 0 or traffic.bronze + started <= bronze_window(traffic, slots, company)


@given(slots=SLOTS, bronze=COUNTS, company=COMPANIES)
def test_bronze_has_everything_where_nobody_better_was_seen_lately(
    slots: int, bronze: int, company: Company
) -> None:
    assert bronze_window(Traffic(bronze=bronze), slots, company) == slots


@given(slots=SLOTS, peak=COUNTS, company=COMPANIES, ready=st.integers(1, 4))
def test_an_idle_pool_always_takes_one(slots: int, peak: int, company: Company, ready: int) -> None:
    assert bronze_opening(Traffic(peak=peak), slots, company, ready).room >= 1


@given(traffic=traffics(), slots=SLOTS, most=st.integers(1, 64), ready=st.integers(1, 4))
def test_company_that_breaks_a_promise_is_not_let_in(
    traffic: Traffic, slots: int, most: int, ready: int
) -> None:
    window = bronze_window(traffic, slots * ready, Company(most=most), ready)

    if traffic.peak and traffic.better:
        assert window == 0 or window + traffic.peak <= most * ready


def test_what_better_tiers_had_is_no_company_to_brief_items() -> None:
    # Four workers of eight slots, of which two may be taken for the promise to be kept.
    traffic = Traffic(better=3, bronze=0, peak=8, best=SlaTier.GOLD)

    assert bronze_window(traffic, 32, Company(most=2), ready=4) == 0
    assert bronze_window(traffic, 32, Company(most=2, is_brief=True), ready=4) == 4


@given(traffic=traffics(), slots=SLOTS)
def test_of_brief_items_a_slot_is_kept_for_the_next_to_come_however_many_there_were(
    traffic: Traffic, slots: int
) -> None:
    window = bronze_window(traffic, slots, Company(is_brief=True))

    if traffic.peak:
        assert window == max(slots - traffic.better - 1, traffic.better == 0)


@given(traffic=traffics(), slots=SLOTS)
def test_all_idle_slots_are_given_where_items_are_so_short_that_an_urgent_one_can_wait(
    traffic: Traffic, slots: int
) -> None:
    window = bronze_window(traffic, slots, Company(turns_over=True))

    assert window == max(0, slots - traffic.better)


def test_a_pool_without_workers_takes_nothing() -> None:
    assert bronze_window(Traffic(), 0) == 0
    assert bronze_opening(Traffic(), 0).room == 0


def test_an_item_that_may_wait_for_another_turns_over() -> None:
    assert turns_over(None, p99_ms=20, holds_ms=20, promise_ms=50)
    assert not turns_over(None, p99_ms=20, holds_ms=40, promise_ms=50)


def test_what_was_seen_tells_more_than_what_is_expected() -> None:
    assert turns_over(0.005, p99_ms=200, holds_ms=20, promise_ms=50)
    assert not turns_over(0.3, p99_ms=20, holds_ms=20, promise_ms=50)


def test_items_that_share_a_workers_cores_are_limited() -> None:
    company = company_of(lambda n: 10.0 * n, 10, 32, 50)

    assert company == Company(most=5)


def test_a_promise_that_is_broken_anyway_limits_nobody() -> None:
    assert company_of(lambda n: 80.0 * n, 70, 32, 50) == HARMLESS


def test_a_promise_that_is_kept_now_and_then_is_not_made_worse() -> None:
    assert company_of(lambda n: 60.0 * n, 40, 32, 50) == Company(most=1)


@given(
    base_ms=st.floats(1, 100),
    each_ms=st.floats(0, 20),
    slots=SLOTS,
    promise_ms=st.floats(10, 200),
)
def test_the_most_in_flight_keep_the_promise_and_one_more_breaks_it(
    base_ms: float, each_ms: float, slots: int, promise_ms: float
) -> None:
    def p99_ms(in_flight: int) -> float:
        return base_ms + each_ms * in_flight

    company = company_of(p99_ms, 0.0, slots, promise_ms)

    if company.most is not None:
        assert company.most == 1 or p99_ms(company.most) <= promise_ms
        assert p99_ms(company.most + 1) > promise_ms


EVENTS = st.lists(
    st.tuples(st.floats(0, 30), st.integers(0, 20), st.sampled_from(list(SlaTier)[:2])),
    max_size=30,
)


@given(events=EVENTS, later_s=st.floats(0, 2 * LOOK_BACK_S), better=COUNTS)
def test_the_peak_is_the_most_of_the_last_minute(
    events: list[tuple[float, int, SlaTier]], later_s: float, better: int
) -> None:
    peak, now, noted = Peak(), 0.0, []
    for pause_s, count, tier in events:
        now += pause_s
        peak.note(now, count, tier)
        noted.append((now, count, tier))
    now += later_s

    traffic = peak.traffic(now, better, 3)

    lately = [(count, tier) for at, count, tier in noted if at > now - LOOK_BACK_S]
    assert (traffic.better, traffic.bronze) == (better, 3)
    assert traffic.peak == max([better, *(count for count, _ in lately)])
    assert (traffic.best is SlaTier.GOLD) == any(tier is SlaTier.GOLD for _, tier in lately)
    if traffic.peak == 0 and traffic.best is not SlaTier.GOLD:
        assert traffic.best is SlaTier.BRONZE


def test_a_peak_from_before_the_clock_was_put_back_is_forgotten() -> None:
    peak = Peak()
    peak.note(10_000.0, 8, SlaTier.GOLD)

    now = 10_000.0 - 3600.0
    assert peak.traffic(now, 0, 3) == Traffic(bronze=3)
    peak.note(now, 2, SlaTier.SILVER)
    assert peak.traffic(now + 1, 0, 3) == Traffic(bronze=3, peak=2, best=SlaTier.SILVER)
