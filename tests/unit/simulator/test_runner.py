"""A runner on AWS: its jobs are let in one by one, it gives up in time, and it is paid for."""

from __future__ import annotations

import pytest

from bench.simulator import facts, round_bill
from bench.simulator.requests import End, Request
from bench.simulator.runner import Runner
from synapse.application.entrance import LOOK_EVERY_S, WAIT_S
from synapse.application.waiting import MOST_WAIT
from synapse.domain import cost
from synapse.domain.batching import JobMessage
from synapse.domain.job import Priority, SlaTier
from synapse.domain.reference import PAYLOADS, SLOTS
from tests.unit.simulator.on_aws import Aws

LOOKED_S = 0.2
"""By then it is known what room there is."""

CLAIMED_S = 1.0
"""By then prompts are there."""


def visit(aws: Aws, jobs: int, timeout_s: float = 600.0) -> Runner:
    """A batch has come to a runner."""
    lane, now, batch = aws.lane, aws.events.now, []
    for _ in range(jobs):
        request = Request(len(aws.jobs), "rerank", SlaTier.BRONZE, now, 0.0, timeout_s)
        aws.jobs.append(request)
        deadline_at = now + timeout_s
        job_id = lane.opened(request)
        batch.append(JobMessage(job_id, "rerank", "1", Priority.NORMAL, 1, now, deadline_at))
    lane.queue.send_again(batch)
    runner = Runner(lane, aws.system.specs["rerank"], aws.pool, batch)
    aws.events.begin(runner.run())
    return runner


def test_who_waits_has_claimed_all_and_lets_them_in_one_by_one_in_their_order() -> None:
    aws = Aws().measured().full()

    runner = visit(aws, 4)
    aws.run(CLAIMED_S)
    claimed, begun = len(aws.lane.queue), runner.begun
    aws.free(1)
    aws.run(1.0)

    assert (claimed, begun, runner.begun, runner.left) == (0, 0, 4, [])
    assert aws.ends() == {End.DELIVERED}
    ended = [job.ended_at for job in aws.jobs]
    assert ended == sorted(set(ended))
    # The slot goes from one to the next: it is neither left nor entered.
    item_s = facts.TIMES["rerank"]["gpu"].p50_s
    assert ended[-1] - ended[0] < 3 * (item_s + LOOK_EVERY_S)


def test_where_there_is_room_for_all_they_begin_together() -> None:
    aws = Aws().measured()

    runner = visit(aws, SLOTS)
    aws.run(CLAIMED_S)

    assert runner.begun == SLOTS
    assert aws.meter.done["waits"] == 0
    item_s = aws.jobs[-1].ended_at - aws.jobs[0].ended_at
    assert item_s < LOOK_EVERY_S


def test_who_may_not_wait_claims_as_many_as_there_is_room_for() -> None:
    aws = Aws().full()

    nothing = visit(aws, 2)
    aws.run(LOOKED_S)
    aws.free(2)
    some = visit(aws, 4)
    aws.run(CLAIMED_S)

    assert (nothing.begun, len(nothing.left)) == (0, 2)
    assert (some.begun, len(some.left)) == (2, 2)
    assert len(aws.lane.queue) == 4
    assert aws.meter.done["claims in vain"] == aws.meter.done["waits"] == 0


def test_a_runner_gives_up_when_nobody_was_let_in_for_a_while() -> None:
    aws = Aws().measured().full()

    runner = visit(aws, 16)
    aws.run(WAIT_S - CLAIMED_S)
    aws.free(1)
    aws.run(0.2)
    aws.lane.slots.occupy("rerank", "gpu", 1)
    aws.run(WAIT_S - 1.0)
    waiting = len(aws.lane.queue)
    aws.run(2.0)

    assert 0 < runner.begun < 16
    assert waiting == 0
    assert len(aws.lane.queue) == aws.meter.done["claims in vain"] == 16 - runner.begun


def test_so_many_runners_wait_for_a_pool_and_one_more_when_one_has_gone() -> None:
    aws = Aws().measured().full()

    first = visit(aws, 1)
    for _ in range(MOST_WAIT):
        visit(aws, 1)
    aws.run(CLAIMED_S)

    assert aws.meter.done["claims in vain"] == 0
    assert len(aws.lane.queue) == 1  # the last one's: it has not been claimed
    aws.run(WAIT_S)
    assert aws.meter.done["waits"] == aws.meter.done["claims in vain"] == MOST_WAIT
    assert first.begun == 0
    again = visit(aws, 1)
    aws.free()
    aws.run(CLAIMED_S)
    assert again.left == []


def test_what_is_claimed_in_vain_is_billed_and_so_is_the_time_it_waited() -> None:
    aws = Aws().measured().full()
    before = aws.meter.bill

    visit(aws, 3)
    aws.run(WAIT_S + CLAIMED_S)

    in_vain = round_bill.claimed_in_vain(PAYLOADS["rerank"]).times(3)
    waited = round_bill.tried_in_vain(WAIT_S)
    each_s = LOOK_EVERY_S + 0.008  # a read, which takes its time
    looks = round_bill.asked(round((WAIT_S - 0.2) / each_s))
    bill = aws.meter.bill + before.times(-1.0)
    assert bill.bucket == pytest.approx(in_vain.bucket)
    assert bill.functions == pytest.approx(waited.functions, rel=0.02)
    assert bill.batcher == pytest.approx(waited.batcher, rel=0.02)
    known = in_vain + waited + looks + round_bill.counted_waiting()
    assert bill.tables == pytest.approx(known.tables, rel=0.03)
    assert min(in_vain.tables, looks.tables) > 0.1 * bill.tables


def test_a_runner_is_paid_for_while_it_waits_until_its_last_item_has_ended() -> None:
    aws = Aws().measured().full()
    before = aws.meter.bill

    visit(aws, 2)
    aws.run(2.0)
    aws.free()
    aws.run(1.0)

    took_s = max(job.ended_at for job in aws.jobs) - aws.jobs[0].arrived_at
    bill = aws.meter.bill + before.times(-1.0)
    assert took_s > 2.0
    # That prompts are fetched is in what each job and batch costs anyway.
    fetched_s = 0.2
    waited = cost.batch(took_s - fetched_s, items=2)
    assert bill.functions == pytest.approx(waited.functions, rel=0.04)


def test_who_is_let_in_after_the_deadline_expires() -> None:
    aws = Aws().measured().full()

    runner = visit(aws, 2, timeout_s=2.0)
    aws.run(3.0)
    still = aws.ends()
    aws.free()
    aws.run(0.2)

    assert still == {None}
    assert aws.ends() == {End.EXPIRED}
    assert runner.left == []
    assert runner.begun == 0
    assert aws.lane.slots.in_flight("rerank", "gpu") == 0


def test_jobs_of_a_runner_whose_last_worker_goes_are_left_over() -> None:
    aws = Aws().measured().full()

    runner = visit(aws, 2)
    aws.run(CLAIMED_S)
    aws.system.pools.resize(aws.system.pools.kinds[0], 0)
    aws.run(3.0)

    assert aws.ends() == {None}
    assert len(runner.left) == aws.meter.done["claims in vain"] == len(aws.lane.queue) == 2
