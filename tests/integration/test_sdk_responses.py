"""OpenAI's SDK on streamed responses over a network: what comes when, and what hanging up ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from openai import AsyncOpenAI

from synapse.api.asgi import AsgiApp
from synapse.domain.inference import Delta
from tests.integration.test_sdk_retries import (
    HELLO,
    GatedEngine,
    a_dropped_connection,
    behind,
    requests_counted,
)
from tests.patience import PATIENCE_S, until
from tests.serving import serving
from tests.unit.api.calls import api_of
from tests.unit.application.stepping import stepping, words
from tests.unit.application.world import CHAT, World


@asynccontextmanager
async def sdk(world: World) -> AsyncIterator[AsyncOpenAI]:
    """The SDK in front of a server over that world."""
    async with serving(AsgiApp(api_of(world))) as (port, _):
        url = f"http://127.0.0.1:{port}/v1"
        async with AsyncOpenAI(
            base_url=url, api_key="none", timeout=PATIENCE_S, max_retries=0
        ) as client:
            yield client


async def deltas(stream: Any) -> AsyncIterator[str]:
    async for event in stream:
        if event.type == "response.output_text.delta":
            yield event.delta


async def test_each_token_is_read_before_the_next_is_written() -> None:
    gate = asyncio.Event()
    world, _ = stepping(lambda *_: [Delta("a", 1, 1), gate, *words("b")])

    async with sdk(world) as client:
        read = deltas(await client.responses.create(model=CHAT, input=HELLO, stream=True))
        assert await anext(read) == "a"
        gate.set()
        assert [each async for each in read] == ["b"]


async def test_hanging_up_ends_the_generation_at_the_engine() -> None:
    world, engine = stepping(lambda *_: [Delta("a", 1, 1), asyncio.Event()])

    async with sdk(world) as client:
        stream = await client.responses.create(model=CHAT, input=HELLO, stream=True)
        assert await anext(deltas(stream)) == "a"
        assert engine.running == 1
        await stream.close()
        await until(lambda: engine.running == 0)

    assert world.slots.in_flight(CHAT) == 0


async def test_hanging_up_ends_an_answer_that_was_to_come_whole() -> None:
    engine = GatedEngine()
    world = World(engine=engine)
    async with serving(AsgiApp(api_of(world))) as (port, _), httpx.AsyncClient() as client:
        url, body = f"http://127.0.0.1:{port}/v1/responses", {"model": CHAT, "input": HELLO}
        request = asyncio.create_task(client.post(url, json=body, timeout=PATIENCE_S))
        await asyncio.wait_for(engine.begun.wait(), PATIENCE_S)
        assert world.slots.in_flight(CHAT) == 1
        request.cancel()
        await until(lambda: world.slots.in_flight(CHAT) == 0)


async def test_a_response_whose_connection_broke_is_computed_and_paid_for_once() -> None:
    engine = GatedEngine()
    world = World(engine=engine)
    async with behind(world) as (client, network):
        raw, _ = await asyncio.gather(
            client.responses.with_raw_response.create(model=CHAT, input=HELLO),
            a_dropped_connection(engine, network),
        )

    assert raw.parse().output_text == HELLO
    assert raw.headers["x-synapse-retry"] == "attached"
    assert (len(engine.calls), requests_counted(world)) == (1, 1)
