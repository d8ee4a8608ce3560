"""What services bill, and machine hours."""

from __future__ import annotations

import pytest

from synapse.domain import cost
from synapse.domain.cost import Bill, MachineHours, Payload


def test_a_million_calls_cost_what_the_price_lists_say() -> None:
    million = cost.call().times(1e6)

    assert million.gateway == pytest.approx(3.50)
    assert million.tables == pytest.approx(6 * 0.625 + 4 * 0.125)
    # 20 ms of a function of 1 GB, and the request.
    assert million.functions == pytest.approx(0.20 + 1e6 * 0.02 * 0.0000133334)
    assert million.usd == pytest.approx(million.gateway + million.tables + million.functions)


def test_a_caller_who_waits_costs_a_function_and_a_job_a_queue() -> None:
    assert cost.held(3600.0).functions == pytest.approx(0.048, rel=1e-5)
    assert cost.call().queues == cost.held(10.0).queues == 0
    assert cost.job().queues == pytest.approx(3 * 0.40e-6)
    assert cost.batch(0.0).batcher > 1e-6


def test_each_item_of_a_batch_is_counted_in_flight_and_pays_for_idle_time_by_itself() -> None:
    alone, together = cost.batch(1.0).tables, cost.batch(1.0, items=10).tables

    # The rate is written, and read, once for all of them, as is what room there is.
    assert alone == pytest.approx(4 * 0.625e-6 + 4 * 0.125e-6)
    assert together == pytest.approx(10 * alone - 9 * (0.625e-6 + 2 * 0.125e-6))


def test_the_pinger_and_the_scale_function_have_the_memory_of_the_template() -> None:
    month = cost.housekeeping(730 * 3600.0)

    rounds = 730 * 60
    assert month.functions == pytest.approx(rounds * (2 * 0.20e-6 + 0.3 * 1.5 * 0.0000133334))


def test_an_environment_that_is_provisioned_is_paid_idle_and_less_when_it_runs() -> None:
    idle, run = cost.provisioned(1, 3600.0, 1.0), cost.provisioned_run(3600.0, 1.0)
    plain = cost.lambda_run(3600.0, 1.0)

    assert idle.functions == pytest.approx(0.012, rel=1e-3)
    assert plain.functions == pytest.approx(0.048, rel=1e-3)
    # Full of work, it is cheaper by a sixth.
    assert idle.functions + run.functions == pytest.approx(plain.functions * 5 / 6, rel=1e-2)


def test_a_runner_is_paid_for_while_it_waits_for_its_items() -> None:
    # 50,000 a day of 30 s, a function of 1 GB each: 760 dollars a month on x86, 608 on arm64.
    month = cost.batch(30.0).times(50_000 * 730 / 24)

    assert month.functions == pytest.approx(760 * 0.8, rel=0.02)
    assert cost.batch(30.0, has_runner=False).functions == pytest.approx(0.2e-6)


def test_a_job_bills_its_whole_item_with_each_write() -> None:
    # Put, claimed, ended, counted (twice), the index four times, and its usage in a transaction.
    assert cost.job_writes(Payload(0.1, 0.1)) == 5 + 4 + 2
    assert cost.job_writes(Payload(2.1, 0.1)) == 5 * 3 + 4 + 2
    assert cost.job_writes(Payload(0.1, 2.1)) == 2 + 3 * 3 + 4 + 2


def test_a_large_payload_is_put_into_the_bucket_and_got_from_there() -> None:
    large = Payload(500.0, 500.0)

    assert cost.job().bucket == cost.fetched().bucket == 0
    assert cost.job(large).bucket == pytest.approx(2 * 5e-6 + 0.4e-6)
    assert cost.fetched(large).bucket == pytest.approx(0.4e-6)
    assert cost.job_writes(Payload(9.0, 0.1)) == cost.job_writes(Payload(36.0, 0.1)) == 11
    # Functions wait for it: of both, two puts and a get, and a get by who reads the result.
    waits = [cost.job(large), cost.job(), cost.fetched(large), cost.fetched()]
    job_s, small_s, fetch_s, other_s = [bill.functions / 0.0000133334 for bill in waits]
    assert (job_s - small_s, fetch_s - other_s) == pytest.approx((0.3, 0.1))


def test_a_payload_lies_where_it_is_cheaper() -> None:
    """Around the limit neither place is much dearer than the other."""
    for inline, apart in ((Payload(2.5), Payload(2.51)), (Payload(0.2, 2.5), Payload(0.2, 2.51))):
        bills = [cost.job(each) + cost.fetched(each) for each in (inline, apart)]
        assert bills[1].usd == pytest.approx(bills[0].usd, rel=0.3)
    in_item_usd = (5 * 10 + 6 + 2) * 0.625e-6
    long = cost.job(Payload(9.0))
    assert long.tables + long.bucket + (long.functions - cost.job().functions) < in_item_usd / 2


def test_a_result_that_is_waited_for_holds_a_function_and_one_that_is_fetched_later_does_not() -> (
    None
):
    later, waited = cost.fetched(), cost.fetched(waited_s=60.0)

    assert later.gateway == pytest.approx(3.5e-6)
    assert later.functions == pytest.approx(0.2e-6 + 0.02 * 0.0000133334)
    # Three GETs, as none lasts longer than half a minute.
    assert waited.gateway == pytest.approx(3 * 3.5e-6)
    assert waited.functions == pytest.approx(3 * later.functions + 60 * 0.0000133334)


def test_a_stack_without_work_pays_for_its_alarms_dashboard_and_metrics() -> None:
    month = cost.housekeeping(730 * 3600.0)

    assert month.monitoring == pytest.approx(26 * 0.10 + 3.00 + 24 * 0.30)
    assert month.usd == pytest.approx(month.monitoring + month.functions + month.tables)


def test_bills_add_up_by_service() -> None:
    bills = [cost.call(), cost.job(), cost.batch(1.0), cost.housekeeping(60.0)]

    assert sum(bills, Bill()).usd == pytest.approx(sum(bill.usd for bill in bills))
    assert cost.job().times(3).queues == pytest.approx(3 * cost.job().queues)


def test_who_was_never_up_is_not_in_use() -> None:
    assert MachineHours().use == 0.0


def test_machine_hours_are_paid_whatever_they_were_spent_on() -> None:
    hours = MachineHours(1.0, 0.5, 2.5) + MachineHours(1.0).times(2)

    assert hours.paid == pytest.approx(6.0)
    assert hours.use == pytest.approx(3 / 5.5)
    assert sum(hours.usd(0.8).values()) == pytest.approx(4.8)
