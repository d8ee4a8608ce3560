"""Jobs that come when no worker is up, in both shapes."""

from __future__ import annotations

import pytest

from tests.factories import NOW, a_worker
from tests.unit.api.calls import api_of, call
from tests.unit.application.cold_world import ColdWorld

SHAPES = [
    ("/async-infer", {"model": "echo", "prompt": "hello"}, "jobId", "/results/"),
    ("/api/inference", {"model": "echo", "data": {"text": "hello"}}, "task_id", "/api/inference/"),
]


@pytest.mark.parametrize(("path", "body", "key", "results"), SHAPES)
async def test_a_job_says_that_it_waits_for_a_worker_to_start_and_how_long(
    path: str, body: dict[str, object], key: str, results: str
) -> None:
    world = ColdWorld()
    api = api_of(world)

    accepted = await call(api, "POST", path, body)
    waiting = await call(api, "GET", results + accepted.json[key])
    world.clock.advance(5.0)
    await world.workers.beat(a_worker(started_at=NOW, lease_until=NOW + 99))
    await world.work()
    done = await call(api, "GET", results + accepted.json[key])

    answers = [accepted.json, waiting.json, done.json]
    assert [answer["status"].upper() for answer in answers] == ["QUEUED", "QUEUED", "COMPLETED"]
    assert [answer["cold_start"] for answer in answers] == [True, True, False]
    assert accepted.json["estimated_wait_time"] == 20.0
    assert waiting.json["estimated_wait_time"] == 20.0
    assert done.json.get("estimated_wait_time") is None
