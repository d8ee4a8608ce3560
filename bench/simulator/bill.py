"""What the services around the workers cost: only what is billed by use."""

from __future__ import annotations

from dataclasses import dataclass

from bench.simulator import facts

API_GB = 1.0
"""Memory of the functions that take requests and run batches, as in template.yaml."""

JOB_LAMBDA_S = 0.03
"""E: what submitting a job, and its share of dispatching, keep a function busy."""

JOB_WRITES = 4
"""The record, its start, its end, and the message's bookkeeping."""


@dataclass(slots=True)
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

    def call(self) -> None:
        """A caller on the line: two writes in the ledger of what is in flight."""
        self.gateway += facts.USD_API_REQUEST
        self.functions += facts.USD_LAMBDA_REQUEST
        self.tables += 2 * facts.USD_DYNAMO_WRITE + facts.USD_DYNAMO_READ

    def held(self, seconds: float) -> None:
        """A function waited so long for an answer."""
        self.functions += seconds * API_GB * facts.USD_LAMBDA_GB_S

    def job(self) -> None:
        """A job was submitted."""
        self.gateway += facts.USD_API_REQUEST
        self.functions += 2 * facts.USD_LAMBDA_REQUEST
        self.functions += JOB_LAMBDA_S * API_GB * facts.USD_LAMBDA_GB_S
        self.tables += JOB_WRITES * facts.USD_DYNAMO_WRITE + facts.USD_DYNAMO_READ
        self.queues += 3 * facts.USD_SQS_REQUEST

    def batch(self) -> None:
        """A batch was run: an execution of the batcher, and its runner."""
        seconds = 0.2
        self.batcher += facts.USD_EXPRESS_REQUEST + seconds * 0.0625 * facts.USD_EXPRESS_GB_S
        self.functions += facts.USD_LAMBDA_REQUEST + seconds * API_GB * facts.USD_LAMBDA_GB_S
