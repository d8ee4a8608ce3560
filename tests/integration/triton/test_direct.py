"""The direct lane on a real Triton: slots that come back, and a worker that goes and comes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from synapse.adapters.local.slots import SlotLedger
from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.adapters.triton.engine import TritonEngine
from synapse.application.direct import DirectLane, DirectRequest
from synapse.application.fleet import Fleet
from synapse.application.seats import Seats
from synapse.domain.errors import EngineError, EngineLost
from synapse.domain.inference import Completion, ModelInput
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from tests.e2e.worker import Worker
from tests.fake_profiles import MemoryProfileStore
from tests.fakes import MemoryRegistry, RecordingTelemetry

GREEDY = {"temperature": 0, "max_tokens": 12}
LONG = {"max_tokens": 1500, "ignore_eos": True}
PROMPT = "Once upon a time"


def a_request(request_id: str = "r-1", **changes: Any) -> DirectRequest:
    value = ModelInput(PROMPT, parameters=GREEDY)
    fields: dict[str, Any] = {"model": "smollm2-135m-instruct", "input": value, "timeout_s": 60.0}
    return DirectRequest(request_id, **{**fields, **changes})


@pytest.fixture
def slots() -> SlotLedger:
    return SlotLedger(time.time)


@pytest.fixture
def lane(
    engine: TritonEngine, llm: ModelSpec, echo: ModelSpec, pool: Pool, slots: SlotLedger
) -> DirectLane:
    registry, clock = MemoryRegistry([llm, echo], [pool]), time.time
    workers = LocalWorkerRegistry()
    fleet = Fleet.over(engine, registry, workers, MemoryProfileStore(), slots, clock)
    seats = Seats(registry, slots, fleet.windows, clock)
    return DirectLane(registry, fleet, seats, RecordingTelemetry(), clock)


async def test_samples_of_a_stream_are_the_samples_of_the_whole(lane: DirectLane) -> None:
    value = ModelInput(PROMPT, parameters=GREEDY, samples=2)

    whole = (await lane.run(a_request(input=value))).result
    texts = ["", ""]
    async with await lane.begin(a_request(input=value)) as generation:
        async for each in generation.deltas():
            texts[each.index] += each.delta.text

    assert isinstance(whole, Completion)
    assert [choice.text for choice in whole.choices] == texts
    assert generation.usage.completion_tokens == whole.usage.completion_tokens == 24
    assert generation.usage.prompt_tokens == whole.usage.prompt_tokens


async def test_a_text_model_gives_its_answer_in_one_piece(lane: DirectLane) -> None:
    request = a_request(model="echo", input=ModelInput("hello there"))

    async with await lane.begin(request) as generation:
        [only] = [each async for each in generation.deltas()]

    assert (only.index, only.delta.text) == (0, "hello there")


async def test_callers_who_go_away_free_their_slots_at_the_engine(
    lane: DirectLane, llm: ModelSpec, slots: SlotLedger
) -> None:
    async def read_a_little(number: int) -> None:
        value = ModelInput(f"{number}. {PROMPT}", parameters=LONG)
        async with await lane.begin(a_request(f"long-{number}", input=value)) as generation:
            async for _ in generation.deltas():
                return

    await asyncio.gather(*(read_a_little(number) for number in range(llm.slots)))

    assert slots.in_flight(llm.name) == 0
    started = time.monotonic()
    answer = await lane.run(a_request("after"))
    assert isinstance(answer.result, Completion)
    # 1,500 tokens in each slot would take it far longer to come to this one.
    assert time.monotonic() - started < 30


async def test_a_killed_worker_breaks_off_what_was_begun_and_holds_what_comes_after(
    lane: DirectLane, triton: Worker, slots: SlotLedger
) -> None:
    async with await lane.begin(a_request(input=ModelInput(PROMPT, parameters=LONG))) as generation:
        deltas = generation.deltas()
        await anext(deltas)
        triton.kill_triton()
        with pytest.raises(EngineError) as caught:
            async for _ in deltas:
                pass
    assert isinstance(caught.value, EngineLost)

    answer = await lane.run(a_request("held"))

    assert isinstance(answer.result, Completion)
    assert answer.timings.held_s > 0.1
    assert slots.in_flight("smollm2-135m-instruct") == 0
