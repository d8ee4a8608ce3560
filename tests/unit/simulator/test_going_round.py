"""Jobs on AWS: who finds no room is gathered, waits or goes round, ends once, and is paid for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.simulator import executions, facts, gathering_queue, going_round, round_bill
from bench.simulator.facts import ONE_MACHINE
from bench.simulator.gathering_queue import GATHER_S
from bench.simulator.going_round import Environment
from bench.simulator.requests import End
from bench.simulator.sweep import Full
from synapse.adapters.aws import profiles, queue, registry, workers
from synapse.application.waiting import MOST_WAIT
from synapse.domain import cost
from synapse.domain.job import SlaTier
from synapse.domain.reference import PAYLOADS, SLOTS
from synapse.domain.retry import RetryPolicy
from tests.unit.simulator.on_aws import Aws

ROOT = Path(__file__).parents[3]
PAYLOAD = PAYLOADS["rerank"]
NEVER = dict.fromkeys(facts.START, facts.Delay(9000.0, 9001.0, "no worker comes in time"))


def test_a_job_that_finds_room_is_looked_at_and_tried_once() -> None:
    aws = Aws()

    aws.send(1)
    aws.run(5.0)

    assert aws.ends() == {End.DELIVERED}
    assert aws.meter.done == {"invocations": 1, "looks": 1, "tries": 1}
    item_s = facts.TIMES["rerank"]["gpu"].p50_s
    assert item_s < aws.jobs[0].took_s < item_s + 1.0


def test_who_finds_no_room_is_gathered_and_all_are_delivered_in_the_end() -> None:
    aws, jobs = Aws().measured(), 20 * SLOTS

    aws.send(jobs // 2)
    aws.run(1.0)
    aws.send(jobs // 2)
    aws.run(120.0)

    done = aws.meter.done
    assert aws.ends() == {End.DELIVERED}
    assert 0 < done["gathered"] <= jobs / 2
    assert done["waits"] > 0
    assert len(aws.system._jobs.queue) == 0
    took_s = max(job.ended_at for job in aws.jobs) - aws.jobs[0].arrived_at
    assert took_s > jobs * facts.TIMES["rerank"]["gpu"].p50_s


def test_jobs_that_find_no_room_are_started_together_when_the_window_is_over() -> None:
    aws = Aws().measured().full()

    for _ in range(4):
        aws.send(1)
        aws.run(0.45)
    early = dict(aws.meter.done)
    aws.run(GATHER_S)

    assert early == {"invocations": 4, "looks": 4, "gathered": 4}
    assert aws.meter.done == {**early, "invocations": 5, "tries": 4}


def test_jobs_that_find_room_or_no_worker_are_started_at_once() -> None:
    for aws in (Aws(), Aws(machines=0)):
        aws.send(4)
        aws.run(1.0)

        assert aws.meter.done["gathered"] == 0
        assert aws.meter.done["tries"] >= 4


def test_what_is_given_back_is_looked_at_and_gathered_again() -> None:
    """Nobody knows how long an item lasts, so that no runner waits."""
    aws = Aws().full()

    aws.send(1)
    aws.run(60.0)

    done = aws.meter.done
    assert done["given back"] > 1
    assert done["gathered"] == done["looks"] == done["given back"] + 1


def test_of_those_that_may_not_wait_most_go_round(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, going = Aws().measured(), Aws().measured()

    for aws, most in ((waiting, MOST_WAIT), (going, 0)):
        monkeypatch.setattr("synapse.application.waiting.MOST_WAIT", most)
        aws.send(20 * SLOTS)
        aws.run(120.0)

    assert waiting.ends() == going.ends() == {End.DELIVERED}
    assert going.meter.done["waits"] == 0
    assert going.meter.done["tries"] > 1.5 * waiting.meter.done["tries"]
    assert going.meter.done["given back"] > waiting.meter.done["given back"]


def test_nobody_waits_at_a_runner_for_a_worker_that_starts() -> None:
    aws = Aws(machines=0)

    aws.send(1)
    until = 60.0
    while aws.jobs[0].end is None:
        aws.run(1.0)
        until -= 1.0
        if until > 0:
            assert len(aws.system._jobs.queue) == 1

    done = aws.meter.done
    assert aws.jobs[0].took_s > facts.START["gpu"].p50_s / 2
    assert done["waits"] == 0
    rounds = done["given back"]
    assert rounds > 5
    assert executions.RETRY.max_attempts * rounds < done["tries"] <= 4 * (rounds + 1)


def test_who_is_not_run_by_the_deadline_expires_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "START", NEVER)
    aws = Aws(machines=0)

    aws.send(30, timeout_s=100.0)
    aws.run(300.0)

    assert aws.ends() == {End.EXPIRED}
    assert all(100.0 <= job.took_s < 110.0 for job in aws.jobs)
    assert len(aws.system._jobs.queue) == 0


def test_of_too_many_for_their_time_each_is_delivered_or_expires() -> None:
    aws = Aws()

    aws.send(200, timeout_s=3.0)
    aws.run(60.0)

    assert aws.ends() == {End.DELIVERED, End.EXPIRED}


def test_what_goes_round_is_billed_by_the_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "START", NEVER)
    aws = Aws(machines=0)

    aws.send(1, timeout_s=200.0)
    aws.run(300.0)

    done, bill, once = aws.meter.done, aws.meter.bill, cost.job(PAYLOAD) + cost.fetched(PAYLOAD)
    vain = round_bill.tried_in_vain().times(done["tries"])
    back = round_bill.given_back([PAYLOAD]).times(done["given back"])
    calls = round_bill.invocation(1, 1, 0).times(done["looks"] - 1)
    known = once + vain + back + calls
    assert known.functions < bill.functions == pytest.approx(known.functions, rel=0.02)
    assert bill.queues == pytest.approx(known.queues, rel=0.02)
    assert bill.gateway == once.gateway


def test_those_that_come_together_share_a_call_and_what_it_costs() -> None:
    alone, of_ten = (round_bill.invocation(number, number, reads=3) for number in (1, 10))

    assert of_ten == alone
    first = round_bill.invocation(10, 0, reads=3)
    assert (first.queues, first.tables) == (0, alone.tables)
    half = round_bill.invocation(10, 5, reads=3)
    assert half.queues == pytest.approx(alone.queues / 2)


def test_who_comes_while_every_environment_is_busy_shares_the_next_call() -> None:
    aws = Aws()

    aws.send(100)
    aws.run(5.0)

    done = aws.meter.done
    assert done["invocations"] < done["looks"] <= round_bill.MESSAGES * done["invocations"]


def test_a_batch_that_finds_no_room_tries_again_and_is_then_given_back() -> None:
    """All slots are silver's meanwhile, and nobody knows how long an item lasts."""
    aws = Aws()
    lane = aws.lane
    lane.slots.occupy("rerank", "gpu", SLOTS, SlaTier.SILVER)

    aws.send(1)
    aws.run(60.0)
    done = dict(aws.meter.done)
    lane.slots.free("rerank", "gpu", SLOTS, SlaTier.SILVER)
    aws.run(20.0)

    assert done["given back"] >= 60.0 // (1.0 + 2.0 + 4.0 + 1.0)
    assert done["tries"] >= executions.RETRY.max_attempts * done["given back"]
    assert done["looks"] == done["given back"] + 1
    paused_usd = aws.meter.bill.batcher
    assert 0 < paused_usd < round_bill.paused(80.0).batcher + cost.batch(1.0).times(20).batcher
    assert aws.ends() == {End.DELIVERED}


def test_jobs_of_one_machine_wait_in_their_order_and_nobody_looks_for_them() -> None:
    aws, one = Aws(), Aws(around=ONE_MACHINE)

    for each in (aws, one):
        each.send(20 * SLOTS)
        each.run(60.0)

    assert one.ends() == aws.ends() == {End.DELIVERED}
    assert not one.meter.done
    # A slot is filled the moment that it is free.
    work_s = 20 * SLOTS * facts.TIMES["rerank"]["gpu"].p50_s
    assert max(job.took_s for job in one.jobs) == pytest.approx(work_s, rel=0.05)
    assert max(job.took_s for job in aws.jobs) > 1.2 * work_s


def test_the_same_seed_gives_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.simulator.sweep.DAY_S", 15.0)
    monkeypatch.setattr("bench.simulator.mixed_day.DAY_S", 15.0)
    monkeypatch.setattr("bench.simulator.mixed_day.END_S", 615.0)
    monkeypatch.setattr("bench.simulator.mixed_day.AFTERWARDS_S", 120.0)

    one, same, other = (Full(9.0, 21.0).run(seed).as_json() for seed in (4, 4, 5))

    assert one == same != other
    assert one["done"]["looks"] >= one["tiers"]["bronze"]["requests"] > 200


def test_what_an_environment_has_read_serves_it_for_a_while() -> None:
    environment = Environment()

    read = [environment.has_to_read("workers", at, 2.0) for at in (0.0, 1.9, 2.0, 3.0, 4.1)]

    assert read == [True, False, True, False, True]
    assert environment.has_to_read("profiles", 0.0, 60.0)


def test_what_is_simulated_is_what_is_deployed() -> None:
    machine = json.loads((ROOT / "statemachines" / "batcher.asl.json").read_text("utf-8"))
    states = machine["States"]["Run batches"]["ItemProcessor"]["States"]
    [retry] = states["Run on pool"]["Retry"]
    assert (retry["BackoffRate"], retry["JitterStrategy"]) == (2, "FULL")
    tries, first_s, most_s = (
        retry[each] for each in ("MaxAttempts", "IntervalSeconds", "MaxDelaySeconds")
    )
    assert RetryPolicy(tries + 1, first_s, most_s) == executions.RETRY

    template = (ROOT / "template.yaml").read_text("utf-8")
    [normal] = re.findall(r"Queue: !GetAtt NormalQueue.Arn, .*", template)
    assert f"BatchSize: {round_bill.MESSAGES}," in normal
    assert f"MaximumConcurrency: {going_round.AT_ONCE}}}" in normal
    [low] = re.findall(r"Queue: !GetAtt LowQueue.Arn, .*", template)
    assert f"BatchSize: {gathering_queue.MOST}," in low
    assert f"MaximumBatchingWindowInSeconds: {GATHER_S:g}," in low

    assert queue.MAX_BATCH == round_bill.MESSAGES
    assert workers.WORKERS_VALID_S == going_round.WORKERS_VALID_S
    assert registry.RATE_VALID_S == going_round.RATE_VALID_S
    assert profiles.PROFILES_VALID_S == going_round.PROFILES_VALID_S
