"""Jobs on AWS: who finds no room waits or goes round, ends once, and is paid for."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench.simulator import executions, facts, going_round, round_bill
from bench.simulator.bill import Meter
from bench.simulator.events import Events, at_once
from bench.simulator.facts import AWS, ONE_MACHINE, Around
from bench.simulator.fleet import kind, model
from bench.simulator.going_round import Environment, RoundLane
from bench.simulator.pools import Pools
from bench.simulator.requests import End, Request
from bench.simulator.sweep import Full
from bench.simulator.system import Synapse
from synapse.adapters.aws import profiles, queue, registry, workers
from synapse.application.room_wait import MOST_WAIT
from synapse.domain import cost
from synapse.domain.job import SlaTier
from synapse.domain.model import ServiceSample
from synapse.domain.reference import PAYLOADS, SLOTS
from synapse.domain.retry import RetryPolicy

ROOT = Path(__file__).parents[3]
PAYLOAD = PAYLOADS["rerank"]
NEVER = dict.fromkeys(facts.START, facts.Delay(9000.0, 9001.0, "no worker comes in time"))


class Aws:
    """`rerank` on one machine of the pool `gpu`, or on none."""

    def __init__(self, machines: int = 1, around: Around = AWS) -> None:
        self.events, chance = Events(), random.Random(1)
        gpu = kind("gpu", most=1)
        gpu = replace(gpu, pool=replace(gpu.pool, min_workers=machines))
        pools = Pools(self.events, chance, [gpu])
        self.system = Synapse(self.events, chance, pools, [model("rerank")], around)
        pools.resize(gpu, machines, at_once=True)
        self.events.run(10.0)
        self.jobs: list[Request] = []

    @property
    def meter(self) -> Meter:
        return self.system.meter

    def send(self, jobs: int, tier: SlaTier = SlaTier.BRONZE, timeout_s: float = 600.0) -> None:
        """So many at this moment."""
        for _ in range(jobs):
            number = len(self.jobs)
            request = Request(number, "rerank", tier, self.events.now, 0.0, timeout_s)
            self.jobs.append(request)
            self.system.arrive(request)

    def run(self, seconds: float) -> None:
        self.events.run(self.events.now + seconds)

    def measured(self) -> Aws:
        """The same, where callers on the line have told how long an item lasts."""
        sample = ServiceSample("rerank", "gpu", 100, 5.0)
        at_once(self.system.routing.registry.record_service(sample, self.events.now))
        return self

    def ends(self) -> set[End | None]:
        return {job.end for job in self.jobs}


def test_a_job_that_finds_room_is_looked_at_and_tried_once() -> None:
    aws = Aws()

    aws.send(1)
    aws.run(5.0)

    assert aws.ends() == {End.DELIVERED}
    assert aws.meter.done == {"invocations": 1, "looks": 1, "tries": 1}
    item_s = facts.TIMES["rerank"]["gpu"].p50_s
    assert item_s < aws.jobs[0].took_s < item_s + 1.0


def test_who_finds_no_room_waits_for_it_and_all_are_delivered_in_the_end() -> None:
    aws, jobs = Aws().measured(), 20 * SLOTS

    aws.send(jobs)
    aws.run(120.0)

    done = aws.meter.done
    assert aws.ends() == {End.DELIVERED}
    assert done["waits"] > 0
    assert len(aws.system._jobs.queue) == 0
    work_s = jobs * facts.TIMES["rerank"]["gpu"].p50_s
    assert max(job.took_s for job in aws.jobs) > work_s


def test_of_those_that_may_not_wait_most_go_round(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, going = Aws().measured(), Aws().measured()

    for aws, most in ((waiting, MOST_WAIT), (going, 0)):
        monkeypatch.setattr("bench.simulator.executions.MOST_WAIT", most)
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
    lane = aws.system._jobs
    assert isinstance(lane, RoundLane)
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

    assert queue.MAX_BATCH == round_bill.MESSAGES
    assert workers.WORKERS_VALID_S == going_round.WORKERS_VALID_S
    assert registry.RATE_VALID_S == going_round.RATE_VALID_S
    assert profiles.PROFILES_VALID_S == going_round.PROFILES_VALID_S
