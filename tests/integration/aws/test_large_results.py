"""What the API on AWS says of a result that its function could not answer with."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from synapse.adapters.principal_records import principal_to_json
from synapse.application.payloads import stow
from synapse.bootstrap_aws import Target
from synapse.domain.access import ANYONE
from synapse.domain.job import JobState, Outcome
from synapse.settings import Settings
from tests.aws import Aws
from tests.factories import a_job, a_lease
from tests.infra.translation import ROOT

MOST_BYTES = 6_291_556
"""Of a Lambda's answer."""


@pytest.mark.parametrize("is_large", [False, True])
async def test_a_result_that_does_not_fit_is_read_by_a_link(cloud: Aws, is_large: bool) -> None:
    names = cloud.environ(SYNAPSE_WEBHOOKS_TABLE=cloud.webhooks_table)
    target = Target(Settings.load(names))
    result = {"text": "x" * (7_000_000 if is_large else 5_000_000), "finish_reason": "stop"}
    job_id = await _completed(target, json.dumps(result))

    answer: Any = await target.api.answer(_asked(job_id), _CONTEXT)

    assert len(json.dumps(answer).encode()) < MOST_BYTES
    body = json.loads(answer["body"])
    assert (answer["statusCode"], body["status"]) == (200, "COMPLETED")
    assert body["result"] == (None if is_large else result)
    assert (body["result_url"] is not None) == is_large


_CONTEXT: Any = SimpleNamespace(get_remaining_time_in_millis=lambda: 29_000)


async def _completed(target: Target, text: str) -> str:
    now = time.time()
    job = a_job(created_at=now, deadline_at=now + 3600, tenant=ANYONE.tenant)
    await target.parts.jobs.create(job)
    await target.parts.jobs.claim([job.id], a_lease("batch-1", now + 60), now)
    payload = await stow(target.parts.blobs, f"jobs/{job.id}/result-batch-1", text)
    ended = Outcome(job.id, JobState.COMPLETED, result=payload)
    assert await target.parts.jobs.settle(ended, "batch-1", now) is not None
    return job.id


def _asked(job_id: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((ROOT / "events" / "api.result-unknown.json").read_text())
    event["path"] = f"/results/{job_id}"
    event["pathParameters"] = {"jobId": job_id}
    event["requestContext"]["path"] = f"/dev/results/{job_id}"
    event["requestContext"]["authorizer"] = {"principal": principal_to_json(ANYONE)}
    return event
