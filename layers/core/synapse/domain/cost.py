"""What traffic costs: formulas of what each service bills, and of how long machines are paid for.

The simulator adds up the same per request and per machine; `synapse cost` multiplies by a month.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

from synapse.domain import price_list as usd

API_GB = 1.0
"""Memory of the functions that take requests and run batches, as in template.yaml."""

FRONT_S = 0.02
"""E: what a function is busy with a request on the line besides waiting for its answer."""

CALL_WRITES = 6
"""In flight from and to, the worker's idle time, the rate of what was answered; what was used is a
transaction of one: 2."""

CALL_READS = 4
"""What is in flight as it comes and as it has gone, in one pool, the rate, and the idle time."""

JOB_LAMBDA_S = 0.03
"""E: what submitting a job, and its share of dispatching, keep a function busy."""

JOB_WAY_S = 0.1
"""E: from a job's acceptance to its batch at a runner, where a worker is up."""

RECORD_KIB = 0.7
"""E: of a job's item, what is neither its prompt nor its result."""

INLINE_KIB = 2.5
"""A prompt or a result that is larger lies in the bucket, not in the item."""

BUCKET_S = 0.1
"""How long a function waits for the bucket each time. AWS says 100 to 200 ms for small objects (its
user guide of S3, on optimizing performance); it was not measured."""

INDEX_WRITES = 4
"""In the index of open jobs: put, moved at the start (2), taken out."""

USAGE_WRITES = 2
"""What was used: one, in the transaction that takes the job off the index."""

BATCH_WRITES = 1
BATCH_READS = 2
"""The rate of what is run, and what is in flight: whether there is room before jobs are claimed."""

ITEM_WRITES = 3
"""In flight from and to, and the worker's idle time, for each item that goes to the engine by
itself, as generations and texts to embed do, whatever rides in its batch."""

ITEM_READS = 2
"""What is in flight, and the idle time."""

BATCH_S = 0.2
BATCH_GB = 0.0625
"""E: how long a batch is under way besides its items, and what Step Functions bills for its memory:
one chunk."""

WAIT_S = 25.0
POLLS = 8
"""How long one GET with `wait` lasts at most, and how often its first second looks into the table;
later it does so once a second."""

ROUND_S = 60.0
ROUND_BUSY_S = 0.3
ROUND_GB = 1.0 + 0.5
ROUND_READS = 20
"""Each minute: period and memory of both functions as in template.yaml, the rest E."""

MONTH_S = 730.0 * 3600
ALARMS = 26
METRICS = 24
"""Of `infra/monitoring.yaml`, and E: series of `docs/metrics.md` with one model in one pool."""


@dataclass(frozen=True, slots=True)
class Bill:
    """Dollars by service."""

    gateway: float = 0.0
    functions: float = 0.0
    tables: float = 0.0
    queues: float = 0.0
    batcher: float = 0.0
    bucket: float = 0.0
    monitoring: float = 0.0

    @property
    def usd(self) -> float:
        """All of them."""
        return float(sum(getattr(self, each.name) for each in fields(Bill)))

    def __add__(self, other: Self) -> Bill:
        """Both."""
        return Bill(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Bill)))

    def times(self, number: float) -> Bill:
        """The same, so many times."""
        return Bill(*(getattr(self, f.name) * number for f in fields(Bill)))


@dataclass(frozen=True, slots=True)
class Payload:
    """What a job carries, in KiB: its prompt and its result, each as it is kept."""

    prompt_kib: float = 0.2
    result_kib: float = 0.5

    @property
    def item_kib(self) -> float:
        """Of the job's item before it has a result."""
        return RECORD_KIB + (self.prompt_kib if self.prompt_kib <= INLINE_KIB else 0.0)

    @property
    def ended_kib(self) -> float:
        """Of the item with its result."""
        return self.item_kib + (self.result_kib if self.result_kib <= INLINE_KIB else 0.0)

    @property
    def in_bucket(self) -> int:
        """How many of the two lie in the bucket."""
        return (self.prompt_kib > INLINE_KIB) + (self.result_kib > INLINE_KIB)


SHORT = Payload()
"""Of a short prompt and its answer."""


def call() -> Bill:
    """A caller on the line, without what it waits for."""
    return held(FRONT_S) + Bill(
        gateway=usd.USD_API_REQUEST,
        functions=usd.USD_LAMBDA_REQUEST,
        tables=CALL_WRITES * usd.USD_DYNAMO_WRITE + CALL_READS * usd.USD_DYNAMO_READ,
    )


def held(seconds: float) -> Bill:
    """A function that waits so long for an answer."""
    return Bill(functions=seconds * API_GB * usd.USD_LAMBDA_GB_S)


def job_writes(payload: Payload) -> int:
    """Write units of a job from its acceptance until it is counted, with those of the index.

    Every write bills the whole item, however little of it changes: when it is made, claimed and
    ended, and twice when it is counted, which is done in a transaction.
    """
    before, after = math.ceil(payload.item_kib), math.ceil(payload.ended_kib)
    return 2 * before + 3 * after + INDEX_WRITES + USAGE_WRITES


def job(payload: Payload = SHORT) -> Bill:
    """A job that was submitted and has ended, without its batch and the fetching of its result.

    Its runner gets the prompt from the bucket, beside those of its batch: the wait is counted as if
    it were alone.
    """
    gets = payload.prompt_kib > INLINE_KIB
    busy_s = JOB_LAMBDA_S + (payload.in_bucket + gets) * BUCKET_S
    return Bill(
        gateway=usd.USD_API_REQUEST,
        functions=2 * usd.USD_LAMBDA_REQUEST + busy_s * API_GB * usd.USD_LAMBDA_GB_S,
        tables=job_writes(payload) * usd.USD_DYNAMO_WRITE,
        queues=3 * usd.USD_SQS_REQUEST,
        bucket=payload.in_bucket * usd.USD_S3_PUT + gets * usd.USD_S3_GET,
    )


def fetched(payload: Payload = SHORT, waited_s: float = 0.0) -> Bill:
    """A job's result, got by one GET, or by as many with `wait` as last until it has ended."""
    gets = max(1, math.ceil(waited_s / WAIT_S))
    looks = gets if waited_s == 0 else gets * POLLS + waited_s
    each_read = math.ceil(payload.ended_kib / 4) * usd.USD_DYNAMO_READ
    one = Bill(gateway=usd.USD_API_REQUEST, functions=usd.USD_LAMBDA_REQUEST) + held(FRONT_S)
    is_apart = payload.result_kib > INLINE_KIB
    return (
        one.times(gets)
        + held(waited_s + is_apart * BUCKET_S)
        + Bill(tables=looks * each_read, bucket=is_apart * usd.USD_S3_GET)
    )


def batch(items_s: float, items: int = 1, *, has_runner: bool = True) -> Bill:
    """A batch that was run, its items for so long: an execution of the batcher, and its runner.

    The runner waits for the worker's answer; where the worker is a function itself, which is paid
    for apart, there is none.
    """
    run_s = BATCH_S + items_s
    return Bill(
        functions=usd.USD_LAMBDA_REQUEST + has_runner * run_s * API_GB * usd.USD_LAMBDA_GB_S,
        tables=(BATCH_WRITES + items * ITEM_WRITES) * usd.USD_DYNAMO_WRITE
        + (BATCH_READS + items * ITEM_READS) * usd.USD_DYNAMO_READ,
        batcher=usd.USD_EXPRESS_REQUEST + run_s * BATCH_GB * usd.USD_EXPRESS_GB_S,
    )


def housekeeping(seconds: float) -> Bill:
    """What is there, work or no work: the pinger and the scale function, alarms, a dashboard."""
    rounds = seconds / ROUND_S
    watched = ALARMS * usd.USD_ALARM_MONTH + usd.USD_DASHBOARD_MONTH
    each_round = Bill(
        functions=2 * usd.USD_LAMBDA_REQUEST + ROUND_BUSY_S * ROUND_GB * usd.USD_LAMBDA_GB_S,
        tables=2 * ROUND_READS * usd.USD_DYNAMO_READ,
    )
    series = METRICS * usd.USD_METRIC_MONTH
    return each_round.times(rounds) + Bill(monitoring=(watched + series) * seconds / MONTH_S)


def lambda_run(busy_s: float, gb: float) -> Bill:
    """A request that a function answers by itself, through the API; starting is billed as well."""
    return Bill(
        gateway=usd.USD_API_REQUEST,
        functions=usd.USD_LAMBDA_REQUEST + busy_s * gb * usd.USD_LAMBDA_GB_S,
    )


def provisioned_run(busy_s: float, gb: float) -> Bill:
    """The same in an environment that is provisioned, whose keep is `provisioned`."""
    return Bill(
        gateway=usd.USD_API_REQUEST,
        functions=usd.USD_LAMBDA_REQUEST + busy_s * gb * usd.USD_PROVISIONED_RUN_GB_S,
    )


def provisioned(environments: float, seconds: float, gb: float) -> Bill:
    """So many environments kept ready for so long, whatever they do."""
    return Bill(functions=environments * seconds * gb * usd.USD_PROVISIONED_GB_S)


@dataclass(frozen=True, slots=True)
class MachineHours:
    """Hours for which machines are paid: they work, they start, or they are up and idle."""

    working: float = 0.0
    starting: float = 0.0
    idle: float = 0.0

    @property
    def paid(self) -> float:
        """All of them."""
        return self.working + self.starting + self.idle

    @property
    def use(self) -> float:
        """The share of the time up in which they work; 0 if they were never up."""
        return self.working / (self.working + self.idle) if self.working else 0.0

    def __add__(self, other: Self) -> MachineHours:
        """Both."""
        return MachineHours(
            self.working + other.working, self.starting + other.starting, self.idle + other.idle
        )

    def times(self, number: float) -> MachineHours:
        """The same, so many times."""
        return MachineHours(self.working * number, self.starting * number, self.idle * number)

    def usd(self, per_hour: float) -> Mapping[str, float]:
        """Dollars by what they did."""
        return {
            "active": self.working * per_hour,
            "starting": self.starting * per_hour,
            "idle": self.idle * per_hour,
        }
