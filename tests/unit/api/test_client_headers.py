"""What OpenAI's clients say in headers: how long they wait, and which attempt it is."""

from __future__ import annotations

import asyncio

import pytest

from synapse.domain.job import SlaTier
from synapse.domain.model import ServiceSample
from tests.factories import NOW
from tests.unit.api.calls import Answered, api_of, call
from tests.unit.application.world import CHAT, EMBEDDER, World

MESSAGES = [{"role": "user", "content": "Hello there"}]
ROUTES: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"model": CHAT, "messages": MESSAGES},
    "/v1/completions": {"model": CHAT, "prompt": "Hello there"},
    "/v1/responses": {"model": CHAT, "input": "Hello there"},
    "/v1/embeddings": {"model": EMBEDDER, "input": "Hello there"},
}

every_route = pytest.mark.parametrize("path", ROUTES)


async def post(world: World, path: str, headers: dict[str, str], **more: object) -> Answered:
    return await call(api_of(world), "POST", path, {**ROUTES[path], **more}, headers=headers)


@every_route
@pytest.mark.parametrize(
    ("headers", "most_s"),
    [
        ({}, 600),
        ({"x-stainless-read-timeout": "20"}, 20),
        ({"x-stainless-read-timeout": "0.25"}, 0.25),
        ({"x-stainless-timeout": "30"}, 30),
        ({"x-stainless-timeout": "0"}, 1),  # OpenAI's client for Node cuts off what is below 1 s
        ({"x-stainless-read-timeout": "86400"}, 600),
        ({"x-stainless-timeout": "86400"}, 600),
        ({"x-stainless-read-timeout": "nonsense"}, 600),
        ({"x-stainless-read-timeout": "nonsense", "x-stainless-timeout": "9"}, 9),
        ({"x-stainless-read-timeout": "inf"}, 600),
        ({"x-stainless-read-timeout": "nan"}, 600),
        ({"x-stainless-read-timeout": "-1"}, 600),
        ({"x-stainless-timeout": "-1"}, 600),
    ],
)
async def test_the_deadline_is_what_the_sdk_says_it_waits(
    path: str, headers: dict[str, str], most_s: float
) -> None:
    world = World()

    await post(world, path, headers)

    _, _, (request,) = world.engine.calls[0]
    assert most_s - min(5, most_s) < request.timeout_s <= most_s


@every_route
@pytest.mark.parametrize("header", ["x-stainless-read-timeout", "x-stainless-timeout"])
async def test_who_cannot_be_answered_in_that_time_is_refused_at_once(
    path: str, header: str
) -> None:
    world = World()
    model = str(ROUTES[path]["model"])
    for pool in ("gpu", "cpu"):
        await world.registry.record_service(ServiceSample(model, pool, 100, 1000.0), NOW)
        for _ in range(40):
            await world.slots.enter(model, pool, 1, 1000, NOW + 600, SlaTier.SILVER)

    refused = await post(world, path, {header: "12"})
    patient = asyncio.create_task(post(world, path, {header: "500"}))

    assert refused.status in (429, 503)
    assert int(refused.headers["retry-after"]) > 0
    assert "12 s" in refused.error["message"]
    assert (await patient).status == 200


@every_route
async def test_a_second_attempt_is_answered_with_the_first_ones_answer(path: str) -> None:
    world = World()
    api, body = api_of(world), ROUTES[path]

    first = await call(api, "POST", path, body, headers={"x-stainless-retry-count": "0"})
    second = await call(api, "POST", path, body, headers={"x-stainless-retry-count": "1"})
    other = await call(
        api, "POST", path, {**body, "user": "x"}, headers={"x-stainless-retry-count": "1"}
    )

    assert second.text == first.text
    assert second.headers["x-synapse-retry"] == "attached"
    assert second.headers["x-synapse-cost-usd"] == first.headers["x-synapse-cost-usd"]
    assert "x-synapse-retry" not in other.headers
    assert sum(used.requests for used in world.usage.sums.values()) == 2


@every_route
async def test_a_key_is_good_for_one_body(path: str) -> None:
    world = World()
    api, body, headers = api_of(world), ROUTES[path], {"Idempotency-Key": "k-1"}

    first = await call(api, "POST", path, body, headers=headers)
    again = await call(api, "POST", path, body, headers=headers)
    other = await call(api, "POST", path, {**body, "user": "x"}, headers=headers)

    assert again.text == first.text
    assert other.status == 422
    assert other.error["param"] == "Idempotency-Key"
    assert len(world.engine.calls) == 1


@every_route
@pytest.mark.parametrize("count", ["-1", "one", "", "1e3", "²", "٣", "1" * 10, "9" * 5000])
async def test_a_count_that_is_none_is_no_reason_to_refuse(path: str, count: str) -> None:
    world = World()

    for _ in range(2):
        answer = await post(world, path, {"x-stainless-retry-count": count})
        assert answer.status == 200
        assert "x-synapse-retry" not in answer.headers

    assert len(world.engine.calls) == 2


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_that_is_none_is_refused(key: str) -> None:
    answer = await post(World(), "/v1/chat/completions", {"Idempotency-Key": key})

    assert (answer.status, answer.error["param"]) == (400, "idempotency-key")
