"""OpenAI's own SDK behind a network that drops its first connection: what it pays for, and gets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from openai import AsyncOpenAI, UnprocessableEntityError

from synapse.api.asgi import AsgiApp
from synapse.domain.inference import Delta
from synapse.domain.job import JobId
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest
from tests.fakes import Answer, ScriptedEngine
from tests.patience import PATIENCE_S, until
from tests.serving import serving
from tests.unit.api.calls import api_of
from tests.unit.application.world import CHAT, EMBEDDER, World

HELLO = "Hello there, who pays for this?"


class GatedEngine(ScriptedEngine):
    """Answers when the gate is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Answer], None]:
        self.begun.set()
        await self.gate.wait()
        async for outcome in super().infer(model, pool, requests):
            yield outcome

    async def stream(
        self, model: ModelSpec, pool: Pool, request: InferenceRequest
    ) -> AsyncGenerator[Delta, None]:
        self.begun.set()
        await self.gate.wait()
        async for delta in super().stream(model, pool, request):
            yield delta


@dataclass
class Network:
    """A relay that drops the first connection: once `cut` is set, or before its answer passes."""

    port: int
    swallow_answer: bool = False
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        is_first = self.connections == 1
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        pumps = {asyncio.create_task(_pump(reader, up_writer))}
        if is_first and self.swallow_answer:
            pumps.add(asyncio.create_task(_swallow(up_reader)))
        elif is_first:
            pumps |= {
                asyncio.create_task(_pump(up_reader, writer)),
                asyncio.create_task(_noted(self.cut)),
            }
        else:
            pumps.add(asyncio.create_task(_pump(up_reader, writer)))
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for each in (writer, up_writer):
            each.transport.abort()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _noted(event: asyncio.Event) -> None:
    await event.wait()


async def _swallow(reader: asyncio.StreamReader) -> None:
    """Return when an answer has come."""
    await reader.read(65_536)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def behind(
    world: World, *, swallow_answer: bool = False
) -> AsyncIterator[tuple[AsyncOpenAI, Network]]:
    """The SDK in front of such a network, and a server behind it."""
    async with serving(AsgiApp(api_of(world))) as (port, _):
        network = Network(port, swallow_answer)
        relay = await asyncio.start_server(network.serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{relay.sockets[0].getsockname()[1]}/v1"
        try:
            async with AsyncOpenAI(base_url=url, api_key="none", timeout=PATIENCE_S) as client:
                yield client, network
        finally:
            relay.close()


def requests_counted(world: World) -> int:
    return sum(used.requests for used in world.usage.sums.values())


async def a_dropped_connection(engine: GatedEngine, network: Network) -> None:
    """The first connection is dropped while the model works; the second one is there."""
    await asyncio.wait_for(engine.begun.wait(), PATIENCE_S)
    network.cut.set()
    await until(lambda: network.connections >= 2)
    await asyncio.sleep(0.1)
    engine.gate.set()


async def test_a_chat_whose_connection_broke_is_computed_and_paid_for_once() -> None:
    engine = GatedEngine()
    world = World(engine=engine)
    async with behind(world) as (client, network):
        raw, _ = await asyncio.gather(
            client.chat.completions.with_raw_response.create(
                model=CHAT, messages=[{"role": "user", "content": HELLO}]
            ),
            a_dropped_connection(engine, network),
        )

    assert raw.parse().choices[0].message.content == HELLO
    assert raw.headers["x-synapse-retry"] == "attached"
    assert raw.retries_taken == 1
    assert (len(engine.calls), requests_counted(world)) == (1, 1)


async def test_an_answer_that_was_lost_on_its_way_is_sent_again() -> None:
    engine = GatedEngine()
    engine.gate.set()
    world = World(engine=engine)
    async with behind(world, swallow_answer=True) as (client, _):
        raw = await client.embeddings.with_raw_response.create(model=EMBEDDER, input="a b c")

    assert raw.parse().usage.prompt_tokens == 3
    assert raw.headers["x-synapse-retry"] == "attached"
    assert (len(engine.calls), requests_counted(world)) == (1, 1)


async def test_a_stream_whose_connection_broke_before_its_first_byte_goes_on() -> None:
    engine = GatedEngine()
    world = World(engine=engine)
    async with behind(world) as (client, network):
        opened = asyncio.create_task(
            client.chat.completions.create(
                model=CHAT,
                messages=[{"role": "user", "content": HELLO}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        await asyncio.wait_for(engine.begun.wait(), PATIENCE_S)
        network.cut.set()
        stream = await opened
        engine.gate.set()
        chunks = [chunk async for chunk in stream]

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == HELLO
    assert stream.response.headers["x-synapse-retry"] == "attached"
    assert (len(engine.calls), requests_counted(world)) == (1, 1)


async def test_the_sdk_takes_a_receipt_at_the_end_of_a_stream_for_an_extra_field() -> None:
    world = World()
    async with behind(world) as (client, _):
        stream = await client.chat.completions.create(
            model=CHAT,
            messages=[{"role": "user", "content": HELLO}],
            stream=True,
            stream_options={"include_usage": True},
        )
        last = [chunk async for chunk in stream][-1]

    assert last.usage is not None
    assert last.usage.completion_tokens == 6
    assert last.choices == []
    assert last.model_extra is not None
    assert last.model_extra["receipt"]["pool"] == "gpu"
    assert last.model_extra["receipt"]["cost"]["total_usd"] > 0


async def test_a_key_is_an_ordinary_header_of_the_sdk() -> None:
    world = World()
    headers = {"Idempotency-Key": "order-7"}
    async with behind(world) as (client, _):
        first, second = [
            await client.completions.create(model=CHAT, prompt="once", extra_headers=headers)
            for _ in range(2)
        ]
        with pytest.raises(UnprocessableEntityError, match="use a new key"):
            await client.completions.create(model=CHAT, prompt="twice", extra_headers=headers)

    assert first.id == second.id
    assert requests_counted(world) == 1
