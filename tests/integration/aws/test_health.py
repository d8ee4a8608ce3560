"""What the API on AWS says of pools that bring no worker up."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from synapse.adapters.principal_records import principal_to_json
from synapse.application.health import STUCK
from synapse.bootstrap_aws import Target
from synapse.domain.access import ANYONE
from synapse.settings import Settings
from tests.aws import REGION, Aws
from tests.factories import a_health
from tests.infra.translation import ROOT

POOLS = [
    {"name": "primary", "accelerator": "gpu", "endpoint": "engine:8001", "models": ["echo"]},
    {"name": "gpu-ecs", "accelerator": "gpu", "max": 2, "models": ["echo"]},
]
CONTEXT: Any = SimpleNamespace(get_remaining_time_in_millis=lambda: 29_000)


@pytest.fixture
def target(cloud: Aws, monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    more = {"SYNAPSE_WEBHOOKS_TABLE": cloud.webhooks_table, "SYNAPSE_POOLS": json.dumps(POOLS)}
    return Target(Settings.load(cloud.environ(**more)))


async def got(target: Target, path: str) -> str:
    event: dict[str, Any] = json.loads((ROOT / "events" / "api.health.json").read_text())
    event["path"] = path
    event["requestContext"]["path"] = f"/dev{path}"
    event["requestContext"]["authorizer"] = {"principal": principal_to_json(ANYONE)}
    answer: Any = await target.api.answer(event, CONTEXT)
    body: str = answer["body"]
    return body


async def test_a_pool_that_brings_no_worker_up_is_told_of(target: Target) -> None:
    now, registry = time.time(), target.parts.registry
    await registry.record_health(a_health("primary", checked_at=now))
    assert json.loads(await got(target, "/health"))["status"] == "ok"

    await target.note_stuck(["gpu-ecs"])

    assert json.loads(await got(target, "/health"))["status"] == "degraded"
    [stuck] = [each for each in await registry.health() if each.pool == "gpu-ecs"]
    assert (stuck.model, stuck.healthy, stuck.detail) == ("echo", False, STUCK)
    page = await got(target, "/metrics")
    assert 'synapse_worker_healthy{model="echo",pool="primary"} 1' in page
    assert 'synapse_worker_healthy{model="echo",pool="gpu-ecs"} 0' in page


async def test_a_pool_of_which_nothing_was_seen_lately_has_no_figure(target: Target) -> None:
    """It is at zero since: its last ping, in the table for a week, is no alarm."""
    now, registry = time.time(), target.parts.registry
    await registry.record_health(a_health("primary", checked_at=now))
    await registry.record_health(a_health("gpu-ecs", healthy=False, checked_at=now - 3600))

    assert json.loads(await got(target, "/health"))["status"] == "ok"
    page = await got(target, "/metrics")
    assert 'synapse_worker_healthy{model="echo",pool="primary"} 1' in page
    assert 'pool="gpu-ecs"' not in page
