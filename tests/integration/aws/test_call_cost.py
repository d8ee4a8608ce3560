"""What DynamoDB bills for a request on the line and a job's run, and what `domain.cost` says."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from synapse.application.direct import DirectRequest
from synapse.application.payloads import encode_input
from synapse.bootstrap_aws import Target
from synapse.domain import cost
from synapse.domain.inference import ModelInput
from synapse.domain.job import Job, Payload
from synapse.domain.worker import CacheLevel, WorkerModel
from synapse.settings import Settings
from tests.aws import REGION, Aws, Call, intercepted
from tests.factories import a_batch, a_job, a_worker
from tests.fakes import ScriptedEngine

MODEL = "all-minilm-l6-v2"
POOL = "neuron"
TEXT = ModelInput(inputs=("hello",))
NUMBER = 12
SLACK = 4
"""A new minute may begin meanwhile, which is noted."""


@pytest.fixture
def target(cloud: Aws, monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    pools = [{"name": POOL, "accelerator": POOL, "pricePerHour": 0.85, "max": 2}]
    target = Target(Settings.load(cloud.environ(SYNAPSE_POOLS=json.dumps(pools))))
    target.parts.engine = ScriptedEngine()
    return target


async def test_a_request_on_the_line_bills_what_the_formula_says(
    cloud: Aws, target: Target
) -> None:
    await _a_worker_is_up(target)
    lane, billed = target._direct, _Billed()

    async def ask(number: int) -> None:
        await lane.run(DirectRequest(f"r-{number}", MODEL, TEXT, 60.0))

    await ask(0)  # this minute's most is noted
    with intercepted(target.parts._dynamodb, billed):
        for number in range(NUMBER):
            await ask(number + 1)

    assert billed.writes == pytest.approx(NUMBER * cost.CALL_WRITES, abs=SLACK)
    assert billed.gets + billed.rates == pytest.approx(NUMBER * cost.CALL_READS, abs=SLACK)


async def test_a_jobs_run_bills_what_the_formula_says_besides_its_record(
    cloud: Aws, target: Target
) -> None:
    """One after the other: jobs of a pool that end at once write its idle time several times."""
    await _a_worker_is_up(target)
    billed = _Billed(cloud.registry_table)

    async def run(jobs: Sequence[Job]) -> None:
        await target.parts.jobs.create_many(jobs)
        batch = a_batch(*(job.id for job in jobs), model=MODEL)
        with intercepted(target.parts._dynamodb, billed):
            await target.run_batch(batch, POOL, 120.0)

    for _ in range(NUMBER):
        payload = Payload(inline=encode_input(TEXT))
        await run([a_job(model=MODEL, created_at=time.time(), payload=payload)])

    writes = NUMBER * (cost.BATCH_WRITES + cost.ITEM_WRITES)
    # The rate is kept for half a second: which of them read it is chance.
    rates, others = NUMBER, NUMBER * (cost.BATCH_READS - 1 + cost.ITEM_READS)
    assert billed.writes == pytest.approx(writes, abs=SLACK)
    assert billed.gets == pytest.approx(others, abs=SLACK)
    assert billed.rates <= rates


async def _a_worker_is_up(target: Target) -> None:
    now, [spec] = time.time(), [s for s in await target.parts.registry.models() if s.name == MODEL]
    resident = (WorkerModel(MODEL, spec.version, CacheLevel.GPU_RESIDENT),)
    up = {"models": resident, "started_at": now - 60, "beat_at": now, "lease_until": now + 600}
    await target.parts.workers.beat(a_worker("w-1", POOL, **up))


class _Billed:
    """Adds up units of items below 1 KiB: a write is one, in a transaction two; a read is one.

    Of lists only those of rates count: workers and profiles are kept for seconds and minutes.
    """

    def __init__(self, table: str = "") -> None:
        self._table, self.writes, self.gets, self.rates = table, 0, 0, 0

    def __call__(self, call: Call, operation: str, arguments: Any) -> Any:
        """Pass an operation on, and bill it."""
        if operation == "TransactWriteItems":
            self.writes += 0 if self._table else 2 * len(arguments["TransactItems"])
        elif self._table in ("", arguments["TableName"]):
            self.writes += operation in ("PutItem", "UpdateItem")
            self.gets += operation == "GetItem"
            self.rates += operation == "Query" and f"rate#{MODEL}" in str(arguments)
        return call(operation, arguments)
