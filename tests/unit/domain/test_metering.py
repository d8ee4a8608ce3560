"""Metering: whatever the order of events, counts are the sums of what was reserved or used."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from synapse.domain.access import ANYONE, NO_LIMITS, Limits, Principal
from synapse.domain.meter_ledger import EXPIRY_EVERY_S, MeterLedger
from synapse.domain.metering import (
    NANO,
    NOTHING_USED,
    Bounds,
    MeterId,
    Reservation,
    ReservationId,
    Used,
    bounds_of,
    minute_of,
    month_of,
    nano_usd,
)
from tests.factories import NOW

TENANT, ONE, OTHER = MeterId("acme"), MeterId("acme", "one"), MeterId("acme", "other")
TIGHT = Limits(
    requests_per_minute=4, tokens_per_minute=60, concurrent_jobs=3, monthly_usd=90 / NANO
)
SHARED = Limits(
    requests_per_minute=6, tokens_per_minute=90, concurrent_jobs=4, monthly_usd=120 / NANO
)
BOUNDS: list[Bounds] = [{ONE: TIGHT, TENANT: SHARED}, {OTHER: TIGHT, TENANT: SHARED}, {ONE: TIGHT}]


class Meters(RuleBasedStateMachine):
    """A ledger, and beside it the list of all that has happened."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.ledger = MeterLedger()
        self.all: list[tuple[Reservation, Used | None]] = []

    @rule(
        bounds=st.sampled_from(BOUNDS),
        tokens=st.integers(0, 70),
        nano=st.integers(0, 100),
        requests=st.integers(1, 3),
        lasts_s=st.sampled_from([30, 4000]),
    )
    def reserve(self, bounds: Bounds, tokens: int, nano: int, requests: int, lasts_s: int) -> None:
        reservation_id = ReservationId("acme", f"r{len(self.all)}", int(self.now) + lasts_s)
        asked = Reservation(
            reservation_id, tuple(bounds), self.now, tokens, nano, requests=requests
        )
        before = {meter: self.expected(meter) for meter in bounds}
        verdict = self.ledger.reserve(asked, bounds)
        fits = all(
            counted + requests <= (limits.requests_per_minute or 0)
            and so_far + max(1, tokens) <= (limits.tokens_per_minute or 0)
            and spent + max(1, nano) <= (limits.monthly_usd or 0) * NANO
            and under_way + requests <= (limits.concurrent_jobs or 0)
            for meter, limits in bounds.items()
            for counted, so_far, spent, under_way in [before[meter]]
        )
        assert (verdict.refusal is None) == fits
        if fits:
            self.all.append((asked, None))

    @precondition(lambda self: self.all)
    @rule(
        data=st.data(),
        requests=st.integers(0, 3),
        tokens=st.integers(0, 90),
        nano=st.integers(0, 150),
    )
    def settle(self, data: st.DataObject, requests: int, tokens: int, nano: int) -> None:
        at = data.draw(st.integers(0, len(self.all) - 1))
        reservation, before = self.all[at]
        used = Used(min(requests, reservation.requests), tokens, nano)
        settled = self.ledger.settle(reservation.id, used)
        assert (settled is None) == (before is not None), "settled once, whoever asks again"
        if before is None:
            self.all[at] = (reservation, used)

    @rule(seconds=st.sampled_from([1.0, 61.0, 3600.0, 40 * 86_400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        for reservation in self.ledger.expire(self.now):
            at = next(n for n, (each, _) in enumerate(self.all) if each.id == reservation.id)
            assert reservation.id.expires_at <= self.now
            self.all[at] = (reservation, reservation.all_used)

    @rule()
    def restart(self) -> None:
        """A process takes up what the one before it has written."""
        counts = {meter: self.ledger.counts(meter) for meter in self.ledger.meters()}
        self.ledger = MeterLedger(counts, self.ledger.open())

    def held(self, meter: MeterId) -> int:
        """What of the month's money is only reserved: summed up."""
        mine = [each for each, used in self.all if meter in each.meters and used is None]
        return sum(each.nano_usd for each in mine if month_of(each.at) == month_of(self.now))

    def expected(self, meter: MeterId) -> tuple[int, int, int, int]:
        """Requests, tokens and money of the current windows, and what is under way: summed up."""
        mine = [(each, used) for each, used in self.all if meter in each.meters]
        sums = [(each.at, used or each.all_used) for each, used in mine]
        in_minute = [used for at, used in sums if minute_of(at) == minute_of(self.now)]
        in_month = [used for at, used in sums if month_of(at) == month_of(self.now)]
        return (
            sum(used.requests for used in in_minute),
            sum(used.tokens for used in in_minute),
            sum(used.nano_usd for used in in_month),
            sum(each.requests for each, used in mine if used is None),
        )

    @invariant()
    def counts_are_the_sums(self) -> None:
        for meter in (ONE, OTHER, TENANT):
            counts = self.ledger.counts(meter).at(self.now)
            shown = (counts.requests, counts.tokens, counts.nano_usd, counts.open)
            assert shown == self.expected(meter)
            assert counts.held == self.held(meter)

    @invariant()
    def no_limit_is_passed_by_more_than_reservations_were_too_small(self) -> None:
        for meter, limits in ((ONE, TIGHT), (OTHER, TIGHT), (TENANT, SHARED)):
            requests, tokens, spent, under_way = self.expected(meter)
            mine = [(each, used) for each, used in self.all if used and meter in each.meters]
            too_small = sum(max(0, used.tokens - each.tokens) for each, used in mine)
            too_cheap = sum(max(0, used.nano_usd - each.nano_usd) for each, used in mine)
            assert requests <= (limits.requests_per_minute or 0)
            assert under_way <= (limits.concurrent_jobs or 0)
            assert tokens <= (limits.tokens_per_minute or 0) + too_small
            assert spent <= (limits.monthly_usd or 0) * NANO + too_cheap


Meters.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestMeters = Meters.TestCase


def test_one_request_at_a_time_passes_a_budget_by_what_its_own_reserve_lacked_at_most() -> None:
    ledger, bounds = MeterLedger(), {ONE: Limits(monthly_usd=1000 / NANO)}
    for number in range(100):
        reservation_id = ReservationId("acme", str(number), int(NOW) + 60)
        asked = Reservation(reservation_id, (ONE,), NOW, 1, 30)
        if ledger.reserve(asked, bounds).refusal is None:
            ledger.settle(asked.id, Used(1, 1, 75))
    assert 1000 - 30 < ledger.counts(ONE).nano_usd <= 1000 + (75 - 30)


@pytest.mark.parametrize("back_s", [1, 60, 120])
def test_a_clock_that_is_set_back_a_little_begins_no_new_window(back_s: int) -> None:
    month_began = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    ledger, bounds = MeterLedger(), {ONE: Limits(requests_per_minute=1)}
    reservation_id = ReservationId("acme", "r", int(month_began) + 60)
    asked = Reservation(reservation_id, (ONE,), month_began, 1, 30)
    assert ledger.reserve(asked, bounds).refusal is None
    counts = ledger.counts(ONE)
    assert counts.at(month_began - back_s) == counts
    assert counts.at(month_began - 3 * 60).requests == 0
    assert counts.at(month_began - 3 * 60).nano_usd == 30
    assert counts.at(month_began - 86_401).nano_usd == 0


def test_what_expires_is_looked_for_now_and_then_only() -> None:
    ledger = MeterLedger()
    assert ledger.expire(NOW) == []
    asked = Reservation(ReservationId("acme", "r", int(NOW)), (ONE,), NOW, 1)
    assert ledger.reserve(asked, {ONE: TIGHT}).refusal is None
    assert ledger.expire(NOW + EXPIRY_EVERY_S - 1) == []
    assert ledger.expire(NOW + EXPIRY_EVERY_S) == [asked]


def test_a_caller_without_limits_is_on_no_meter() -> None:
    assert not bounds_of(ANYONE)
    assert not bounds_of(Principal("acme", "one", limits=Limits(), tenant_limits=Limits()))


@pytest.mark.parametrize(
    ("changes", "meters"),
    [
        ({"limits": TIGHT}, {ONE: TIGHT}),
        ({"tenant_limits": SHARED}, {TENANT: SHARED}),
        ({"limits": TIGHT, "tenant_limits": SHARED}, {ONE: TIGHT, TENANT: SHARED}),
        ({"limits": NO_LIMITS, "tenant_limits": NO_LIMITS}, {}),
    ],
)
def test_a_caller_is_counted_on_the_meters_that_have_limits(
    changes: dict[str, Any], meters: Bounds
) -> None:
    assert bounds_of(Principal("acme", "one", **changes)) == meters


def test_minutes_and_months_are_those_of_utc() -> None:
    last = datetime(2026, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC).timestamp()
    assert month_of(last) == "2026-12"
    assert month_of(last + 0.001) == "2027-01"
    assert minute_of(last + 0.001) == minute_of(last) + 1


def test_nothing_is_for_free_by_rounding() -> None:
    assert nano_usd(0.0) == 0
    assert nano_usd(1e-12) == 1
    assert nano_usd(1.0) == NANO


def test_what_was_never_begun_counts_as_no_request() -> None:
    assert Used(0, 0, 0) == NOTHING_USED


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**12))
def test_keep_warm_shares_never_overdraw_what_was_reserved(
    reserved: int, active: int, warm: int
) -> None:
    reservation = Reservation(ReservationId("acme", "r", 0), (), 0.0, 0, reserved)

    spent = Used(1, 0, active, warm).spent(reservation)

    assert spent <= max(reserved, active)
    assert spent == active + warm or spent == max(reserved, active)
