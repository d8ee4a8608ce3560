"""One measurement: always so many items under way, and only as many as the median needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest

from synapse.application.measure import measure
from synapse.domain.errors import EngineError, EngineUnavailable
from synapse.domain.inference import Completion, Delta, Embeddings, Result
from synapse.domain.job import JobId, Usage
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool
from synapse.domain.profiling import STABLE_SAMPLES, Cell
from synapse.ports import InferenceRequest, StreamingEngine
from tests.factories import a_chat_model, a_model, a_pool
from tests.virtual_time import in_virtual_time

TEXT, CHAT, POOL = a_model("echo"), a_chat_model("smollm2"), a_pool()
EMBED = replace(a_model("minilm"), task=Task.EMBED, dimensions=2)


class TimedEngine(StreamingEngine):
    """So many slots, each of which takes so long; tokens are words, each written in a moment."""

    def __init__(self, item_s: float = 0.005, slots: int = 64, token_s: float = 0.0) -> None:
        self.item_s, self.token_s = item_s, token_s
        self.slots = asyncio.Semaphore(slots)
        self.under_way = self.most_under_way = 0
        self.prompts: list[str] = []

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Result | EngineError], None]:
        for request in requests:
            await self._work(request)
            if request.input.inputs:
                yield request.id, Embeddings((b"",), Usage(self._words(request)))
            else:
                yield request.id, Completion("", "stop", Usage())

    async def stream(
        self, model: ModelSpec, pool: Pool, request: InferenceRequest
    ) -> AsyncGenerator[Delta, None]:
        await self._work(request)
        wanted = request.input.parameters["max_tokens"]
        assert isinstance(wanted, int)
        for number in range(wanted):
            if number:
                await asyncio.sleep(self.token_s)
            end = "length" if number == wanted - 1 else None
            yield Delta("word ", self._words(request), 1, end)

    async def _work(self, request: InferenceRequest) -> None:
        self.prompts.append(str(request.input.prompt or request.input.inputs[0]))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            async with self.slots:
                await asyncio.sleep(self.item_s)
        finally:
            self.under_way -= 1

    @staticmethod
    def _words(request: InferenceRequest) -> int:
        return len(str(request.input.prompt or request.input.inputs[0]).split())


def test_an_item_alone_is_measured_until_its_median_is_known() -> None:
    found = in_virtual_time(measure(TimedEngine(), TEXT, POOL, Cell(8, 0, 1), limit_s=5.0))

    assert len(found.total_ms) >= STABLE_SAMPLES
    assert sorted(found.total_ms)[len(found.total_ms) // 2] == pytest.approx(5.0)
    assert (found.prompt_tokens, found.output_tokens) == (8, 0)
    assert found.first_ms == ()
    assert 0.25 <= found.took_s < 0.3
    assert found.failed == 0


def test_so_many_are_always_under_way() -> None:
    engine = TimedEngine(item_s=0.005, slots=4)
    found = in_virtual_time(measure(engine, TEXT, POOL, Cell(8, 0, 16), limit_s=1.0))

    assert engine.most_under_way == 16
    assert found.items_per_s == pytest.approx(4 / 0.005, rel=0.05)
    assert engine.under_way == 0


def test_a_generation_is_measured_to_its_first_token_and_to_its_last() -> None:
    engine = TimedEngine(item_s=0.010, token_s=0.002)
    found = in_virtual_time(measure(engine, CHAT, POOL, Cell(12, 6, 2), limit_s=1.0))

    assert (found.prompt_tokens, found.output_tokens) == (12, 6)
    assert len(found.first_ms) == len(found.total_ms)
    assert min(found.first_ms) >= 9.999
    for first, total in zip(found.first_ms, found.total_ms, strict=True):
        assert total - first >= 9.999


def test_inputs_to_embed_are_of_the_size_asked_for() -> None:
    found = in_virtual_time(measure(TimedEngine(), EMBED, POOL, Cell(48, 0, 2), limit_s=0.2))

    assert found.prompt_tokens == 48


def test_no_prompt_comes_twice_so_that_no_cache_answers() -> None:
    engine = TimedEngine(item_s=0.001)
    in_virtual_time(measure(engine, CHAT, POOL, Cell(16, 2, 4), limit_s=0.2))

    assert len(set(engine.prompts)) == len(engine.prompts) > 8


def test_at_the_limit_a_few_answers_are_enough_but_fewer_are_not() -> None:
    found = in_virtual_time(
        measure(TimedEngine(item_s=0.05), TEXT, POOL, Cell(8, 0, 1), limit_s=0.0)
    )

    assert len(found.total_ms) == 3


class BrokenEngine(TimedEngine):
    """Answers a few, then nobody."""

    def __init__(self, answers: int, error: Exception) -> None:
        super().__init__(item_s=0.001)
        self.answers, self.error = answers, error

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Result | EngineError], None]:
        for request in requests:
            self.answers -= 1
            await asyncio.sleep(self.item_s)
            if self.answers >= 0:
                yield request.id, Completion("", "stop", Usage())
            elif isinstance(self.error, EngineError):
                yield request.id, self.error
            else:
                raise self.error


class FlakyEngine(TimedEngine):
    """Fails once."""

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Result | EngineError], None]:
        if len(self.prompts) == 7:
            self.prompts.append("")
            yield requests[0].id, EngineUnavailable("just now")
            return
        async for outcome in super().infer(model, pool, requests):
            yield outcome


def test_a_worker_that_refuses_ends_the_measurement() -> None:
    engine = BrokenEngine(answers=40, error=EngineUnavailable("gone"))
    found = in_virtual_time(measure(engine, TEXT, POOL, Cell(8, 0, 4), limit_s=30.0))

    assert 3 <= found.failed <= 4
    assert 0 < len(found.total_ms) < 40
    assert found.took_s < 5.0


def test_one_failure_neither_ends_it_nor_thins_the_crowd() -> None:
    engine = FlakyEngine(item_s=0.002)
    found = in_virtual_time(measure(engine, TEXT, POOL, Cell(8, 0, 4), limit_s=5.0))

    assert found.failed == 1
    assert len(found.total_ms) >= STABLE_SAMPLES


def test_a_fault_of_our_own_is_not_hidden() -> None:
    engine = BrokenEngine(answers=8, error=ZeroDivisionError())

    with pytest.raises(ZeroDivisionError):
        in_virtual_time(measure(engine, TEXT, POOL, Cell(8, 0, 4), limit_s=30.0))
