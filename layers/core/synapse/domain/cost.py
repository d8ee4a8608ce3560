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

JOB_LAMBDA_S = 0.03
"""E: what submitting a job, and its share of dispatching, keep a function busy."""

JOB_WRITES = 4
"""The record, its start, its end, and the message's bookkeeping."""

BATCH_S = 0.2
BATCH_GB = 0.0625
"""E: how long a batch is under way, and what Step Functions bills for its memory: one chunk."""


ROUND_S = 60.0
ROUND_BUSY_S = 0.3
ROUND_GB = 0.5
ROUND_READS = 20
"""Each minute: memory and period as in template.yaml, the rest E."""


@dataclass(frozen=True, slots=True)
class Bill:
    """Dollars by service."""

    gateway: float = 0.0
    functions: float = 0.0
    tables: float = 0.0
    queues: float = 0.0
    batcher: float = 0.0

    @property
    def usd(self) -> float:
        """All of them."""
        return self.gateway + self.functions + self.tables + self.queues + self.batcher

    def __add__(self, other: Self) -> Bill:
        """Both."""
        return Bill(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Bill)))

    def times(self, number: float) -> Bill:
        """The same, so many times."""
        return Bill(*(getattr(self, f.name) * number for f in fields(Bill)))


def call() -> Bill:
    """A caller on the line: two writes in the ledger of what is in flight; its wait is apart."""
    return held(FRONT_S) + Bill(
        gateway=usd.USD_API_REQUEST,
        functions=usd.USD_LAMBDA_REQUEST,
        tables=2 * usd.USD_DYNAMO_WRITE + usd.USD_DYNAMO_READ,
    )


def held(seconds: float) -> Bill:
    """A function that waits so long for an answer."""
    return Bill(functions=seconds * API_GB * usd.USD_LAMBDA_GB_S)


def job() -> Bill:
    """A job that was submitted; its batch is apart."""
    return Bill(
        gateway=usd.USD_API_REQUEST,
        functions=2 * usd.USD_LAMBDA_REQUEST + JOB_LAMBDA_S * API_GB * usd.USD_LAMBDA_GB_S,
        tables=JOB_WRITES * usd.USD_DYNAMO_WRITE + usd.USD_DYNAMO_READ,
        queues=3 * usd.USD_SQS_REQUEST,
    )


def batch() -> Bill:
    """A batch that was run: an execution of the batcher, and its runner."""
    return Bill(
        functions=usd.USD_LAMBDA_REQUEST + BATCH_S * API_GB * usd.USD_LAMBDA_GB_S,
        batcher=usd.USD_EXPRESS_REQUEST + BATCH_S * BATCH_GB * usd.USD_EXPRESS_GB_S,
    )


def housekeeping(seconds: float) -> Bill:
    """What looks after the fleet, work or no work: the pinger and the scale function."""
    rounds = seconds / ROUND_S
    return Bill(
        functions=usd.USD_LAMBDA_REQUEST + ROUND_BUSY_S * ROUND_GB * usd.USD_LAMBDA_GB_S,
        tables=ROUND_READS * usd.USD_DYNAMO_READ,
    ).times(2 * rounds)


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
class Cycle:
    """A worker that is started when work comes, and let go when none came for a while.

    `up` is the share of the time in which it is paid for, its starts counted, `starting` that of
    its starts, `cold` the share of requests that come when it is not up.
    """

    up: float
    starting: float
    cold: float


def cycle(per_s: float, idle_s: float, start_s: float) -> Cycle:
    """How often a worker comes and goes where requests are short and come independently.

    From a start it takes `start_s`, then it stays until a gap between two requests is longer than
    `idle_s`, which takes (e^(r·idle) − 1)/r at r requests a second; then it is away until the next
    one comes, 1/r. (M/G/1 with a setup time and a delayed switch-off: A. Gandhi, S. Doroudi,
    M. Harchol-Balter and A. Scheller-Wolf, Queueing Systems 77, 2014.)
    """
    if per_s <= 0:
        return Cycle(0.0, 0.0, 0.0)
    # Beyond e^700 there is no number; it is always up long before.
    on_s = math.expm1(min(per_s * idle_s, 700.0)) / per_s
    whole_s = start_s + on_s + 1 / per_s
    cold = (1 + per_s * start_s) / (per_s * whole_s)
    return Cycle((start_s + on_s) / whole_s, start_s / whole_s, min(1.0, cold))


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
