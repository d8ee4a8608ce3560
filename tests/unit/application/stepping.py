"""A world whose engine streams step by step, and how tests of the direct lane read it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from synapse.application.direct import DirectRequest
from synapse.application.generation import Generation, SampleDelta
from synapse.domain.answer import Answered
from synapse.domain.errors import (
    EngineError,
)
from synapse.domain.inference import Delta, ModelInput
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest
from tests.fakes import ScriptedEngine
from tests.unit.application.world import CHAT, World

SLOTS = 8

Step = Delta | EngineError | asyncio.Event
Script = Callable[[Pool, InferenceRequest], Sequence[Step]]


def words(*texts: str) -> list[Step]:
    """A generation of these texts, a token each."""
    parts: list[Step] = [Delta(text, 3, 1) for text in texts]
    return [*parts, Delta("", 3, 0, "stop", 2)]


@dataclass
class SteppingEngine(ScriptedEngine):
    """Streams what its script says step by step: deltas, errors, and events that it waits for."""

    script: Script
    started: list[tuple[str, str]] = field(default_factory=list)
    requests: list[InferenceRequest] = field(default_factory=list)
    running: int = 0

    async def stream(
        self, model: ModelSpec, pool: Pool, request: InferenceRequest
    ) -> AsyncGenerator[Delta, None]:
        self.started.append((pool.name, request.id))
        self.requests.append(request)
        self.running += 1
        try:
            for step in self.script(pool, request):
                await asyncio.sleep(0)
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, EngineError):
                    raise step
                else:
                    yield step
        finally:
            self.running -= 1


def stepping(script: Script) -> tuple[World, SteppingEngine]:
    engine = SteppingEngine(script)
    return World(engine=engine), engine


def a_request(**changes: Any) -> DirectRequest:
    fields: dict[str, Any] = {
        "id": "r-1",
        "model": CHAT,
        "input": ModelInput("Once upon a time"),
        "timeout_s": 60.0,
    }
    return DirectRequest(**{**fields, **changes})


async def read(generation: Generation) -> list[SampleDelta]:
    return [delta async for delta in generation.deltas()]


def text_of(deltas: Sequence[SampleDelta], index: int = 0) -> str:
    return "".join(each.delta.text for each in deltas if each.index == index)


def nothing_is_left(world: World, model: str = CHAT) -> bool:
    """All slots are free, and no task but the test's own is alive."""
    return world.slots.in_flight(model) == 0 and asyncio.all_tasks() == {asyncio.current_task()}


def told(world: World) -> Answered:
    [(answered,)] = world.telemetry.of("answered")
    assert isinstance(answered, Answered)
    return answered


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
