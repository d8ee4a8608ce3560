"""/api/admin: what an operator is told of pools and workers, and why a request goes where."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import pytest

from synapse.api.admin import add_admin_routes
from synapse.api.resolver import Api
from synapse.api.services import Services
from synapse.application.autoscale import PoolStanding
from synapse.application.fleet_view import FleetView
from synapse.domain.errors import Unavailable
from synapse.domain.load import PoolLoad
from synapse.domain.pool import Pool, PoolSize
from synapse.domain.profile import Profile
from synapse.domain.scaling import ScalingDecision
from tests.unit.api.calls import Answered, call
from tests.unit.application.toy_workers import ToyFleetWorld

DEAR = Pool("dear", "gpu", price_per_hour_usd=9.0, min_workers=0, max_workers=4)
CHEAP = Pool("cheap", "cpu", price_per_hour_usd=0.36, min_workers=0, max_workers=4)
FIXED = Pool("own", "cpu", endpoint="10.0.0.1:8001")


STANDING = PoolStanding(
    CHEAP,
    PoolSize(desired=2, ready=2, starting=0),
    warm=1,
    load=PoolLoad(),
    decision=ScalingDecision("cheap", desired=3, was=2, need=2.4, reason="2.4 workers of work"),
    decided_at=1_700_000_000.0,
)


@dataclass
class Sizes:
    """A Capacity whose pools have the size they were given; it cannot tell of others."""

    sizes: dict[str, PoolSize]

    async def size(self, pool: Pool) -> PoolSize:
        if pool.name not in self.sizes:
            raise Unavailable("its service cannot be read")
        return self.sizes[pool.name]

    async def resize(self, pool: Pool, desired: int) -> None:
        raise AssertionError("only the autoscaler decides sizes")


async def fleet_of_two() -> ToyFleetWorld:
    world = ToyFleetWorld([CHEAP, DEAR, FIXED])
    await world.up("c-1", "c-2", pool="cheap")
    await world.profiles.keep(
        Profile("echo", "1", "cheap", "cpu", base_ms=100.0, spread=1.2, samples=40)
    )
    await world.profiles.keep(Profile("echo", "1", "dear", "gpu", base_ms=10.0))
    return world


async def get(world: ToyFleetWorld, path: str) -> Answered:
    api = Api()
    sizes = Sizes({"cheap": PoolSize(desired=3, ready=2, starting=1)})
    view = FleetView(world.fleet, world.registry, sizes, lambda: [STANDING])
    services = SimpleNamespace(fleet=view)
    add_admin_routes(api, cast(Services, services))
    parts = urlsplit(path)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return await call(api, "GET", parts.path, query=query)


async def test_a_route_says_which_pools_and_why() -> None:
    answer = await get(await fleet_of_two(), "/api/admin/route?model=echo&tier=silver")

    assert answer.status == 200
    assert answer.json["pools"] == ["cheap", "own", "dear"]
    assert (answer.json["fallback"], answer.json["is_cold"]) == (None, False)
    assert (answer.json["promise_ms"], answer.json["promise_is_about"]) == (150.0, "whole answer")
    cheap, dear, own = answer.json["candidates"]
    assert (cheap["fits"], cheap["reason"]) == (True, "predicted p99 120 ms fits 150 ms")
    assert (cheap["p99_ms"], cheap["slots"]) == (pytest.approx(120.0), 16)
    # 0.36 $/h for 100 ms.
    assert cheap["usd_per_item"] == pytest.approx(1e-5)
    assert (dear["fits"], dear["is_cold"], dear["start_ms"]) == (False, True, 5000.0)
    assert (own["p99_ms"], own["reason"]) == (None, "nothing was measured of it yet")


async def test_a_route_that_no_pool_is_fast_enough_for_says_so() -> None:
    answer = await get(await fleet_of_two(), "/api/admin/route?model=echo&tier=gold")

    assert answer.json["pools"][0] == "cheap"
    assert answer.json["fallback"].startswith("no pool meets tier gold: cheap: predicted p99 120")


async def test_a_route_of_a_generation_is_about_its_first_token_and_takes_sizes() -> None:
    world = await fleet_of_two()
    await world.profiles.keep(
        Profile("llm", "1", "cheap", "cpu", base_ms=10.0, output_token_ms=10.0)
    )
    path = "/api/admin/route?model=llm&tier=gold&output_tokens=100&deadline="

    enough, short = await get(world, path + "2"), await get(world, path + "0.5")

    assert enough.json["promise_is_about"] == "first token"
    assert enough.json["candidates"][0]["fits"] is True
    assert short.json["candidates"][0]["reason"] == (
        "predicted p99 1010 ms is beyond the deadline, 500 ms"
    )


async def test_best_effort_promises_no_time() -> None:
    answer = await get(await fleet_of_two(), "/api/admin/route?model=echo&tier=bronze")

    assert answer.json["promise_ms"] is None
    assert "Infinity" not in answer.text


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("", 400, "model"),
        ("model=", 400, "model"),
        ("model=nobody", 404, "model"),
        ("model=echo&tier=platinum", 400, "tier"),
        ("model=echo&deadline=0", 400, "deadline"),
        ("model=echo&deadline=nan", 400, "deadline"),
        ("model=echo&prompt_tokens=-1", 400, "prompt_tokens"),
        ("model=echo&output_tokens=many", 400, "output_tokens"),
        ("model=echo&items=0", 400, "items"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(
    query: str, status: int, param: str
) -> None:
    answer = await get(await fleet_of_two(), f"/api/admin/route?{query}")

    assert answer.status == status
    assert answer.error["param"] == param


async def test_workers_are_told_as_they_last_beat_with_what_was_seen_of_them() -> None:
    world = await fleet_of_two()
    world.engine.mode["c-1"] = "away"
    for _ in range(3):
        await world.ask("c-1")
    world.fleet.vitals.outstanding["cheap", "c-2"] = 4

    answer = await get(world, "/api/admin/workers")

    first, second = answer.json["data"]
    assert (first["id"], first["pool"], first["state"]) == ("c-1", "cheap", "READY")
    assert first["models"][0] == {
        "name": "echo",
        "version": "1",
        "level": "GPU_RESIDENT",
        "breaker": "open",
    }
    assert first["gpu_utilisation"] is None
    assert (second["models"][0]["breaker"], second["outstanding"]) == ("closed", 4)


async def test_pools_are_told_with_their_sizes_models_and_profiles() -> None:
    world = await fleet_of_two()
    world.engine.delay_s["c-1"] = 0.1
    await world.ask("c-1")

    answer = await get(world, "/api/admin/pools")

    cheap, dear, own = answer.json["data"]
    assert [cheap[key] for key in ("desired", "ready", "starting")] == [3, 2, 1]
    assert cheap["scaling"] == {
        "desired": 3,
        "need": 2.4,
        "warm": 1,
        "reason": "2.4 workers of work",
        "decided_at": 1_700_000_000.0,
    }
    assert (dear["scaling"], own["scaling"]) == (None, None)
    assert [dear[key] for key in ("name", "desired", "max_workers")] == ["dear", None, 4]
    assert (own["is_fixed"], own["desired"]) == (True, None)
    echo = next(model for model in cheap["models"] if model["model"] == "echo")
    assert (echo["ready"], echo["breaker"], echo["is_open"]) == (2, "closed", False)
    assert echo["latency_ms"] == {"count": 1, "p50": 100.0, "p95": 100.0, "p99": 100.0}
    assert (echo["profile"]["base_ms"], echo["profile"]["samples"]) == (100.0, 40)
    assert next(m for m in cheap["models"] if m["model"] == "llm")["profile"] is None


async def test_the_breaker_of_a_pool_with_an_endpoint_of_its_own_is_that_of_its_worker() -> None:
    world = ToyFleetWorld([FIXED])
    world.engine.mode[""] = "away"
    breaker = world.fleet.vitals.breaker("echo", "own", "")
    for _ in range(3):
        breaker.failed(breaker.began(0.0), 0.0)

    [own] = (await get(world, "/api/admin/pools")).json["data"]

    echo = next(model for model in own["models"] if model["model"] == "echo")
    assert (echo["breaker"], echo["is_open"]) == ("open", True)


async def test_the_routes_are_in_the_openapi_document_with_their_schemas() -> None:
    api = Api()
    add_admin_routes(api, Services.__new__(Services))

    document: dict[str, Any] = json.loads(api.get_openapi_json_schema(title="t", version="1"))

    route = document["paths"]["/api/admin/route"]["get"]
    assert {p["name"] for p in route["parameters"]} == {
        *("model", "tier", "deadline", "prompt_tokens", "output_tokens", "items")
    }
    answer = route["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer["$ref"].endswith("/RouteBody")
    assert {"RouteBody", "WorkerList", "PoolList"} <= set(document["components"]["schemas"])
