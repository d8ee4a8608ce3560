"""The engine port over Triton's gRPC: the same client for every pool and both targets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import grpc

from synapse.adapters.triton import chat, embedding, failures, generation
from synapse.adapters.triton.connection import (
    Connections,
    ConnectionSettings,
    Unreachable,
)
from synapse.adapters.triton.failures import Place
from synapse.adapters.triton.generated import messages
from synapse.adapters.triton.samples import merged
from synapse.adapters.triton.service import Service
from synapse.adapters.triton.tensors import generation_request
from synapse.adapters.triton.text_batch import TextBatch, TextItem, only_text
from synapse.domain.errors import EngineError, InvalidInput
from synapse.domain.inference import Completion, Delta, Embeddings, Result
from synapse.domain.job import JobId
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest

Outcome = tuple[JobId, Result | EngineError]


ASK_TIMEOUT_S = 5.0


class TritonEngine:
    """Speaks to any number of workers at `host:port` (`Pool.endpoint`).

    Connections are made when first needed and reused; to be used from one event loop at a time.
    """

    def __init__(self, settings: ConnectionSettings | None = None) -> None:
        self._connections = Connections(settings or ConnectionSettings())

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[Outcome, None]:
        """Run all requests; yield each one's outcome once, as it becomes known.

        Generations (each sample is one) and embeddings run side by side, at most `model.slots` at
        once; texts go as one batch.
        Closing the iterator cancels what is unfinished at the engine.
        """
        place = _place(model, pool)
        if len(requests) == 1:
            (only,) = requests
            yield only.id, await self._one(place, only)
            return
        run = self._texts if model.task is Task.TEXT else self._side_by_side
        async with aclosing(run(place, requests)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def answer(self, model: ModelSpec, pool: Pool, request: InferenceRequest) -> Result:
        """One item as a whole. Being cancelled cancels it at the engine.

        Raises:
            EngineError: the request is refused, or breaks off.
        """
        outcome = await self._one(_place(model, pool), request)
        if isinstance(outcome, EngineError):
            raise outcome
        return outcome

    async def stream(
        self, model: ModelSpec, pool: Pool, request: InferenceRequest
    ) -> AsyncGenerator[Delta, None]:
        """One generation as it is written; the last delta has a `finish_reason`.

        Closing the iterator cancels the generation at the engine.

        Raises:
            EngineError: the request is refused, or breaks off.
        """
        async with aclosing(
            self._deltas(_place(model, pool), request, _deadline_at(request), stream=True)
        ) as deltas:
            async for delta in deltas:
                yield delta

    async def ready(self, model: ModelSpec, pool: Pool) -> bool:
        """Whether the pool's worker says that it serves the model now."""
        request = messages.ModelReadyRequest(name=model.name, version=model.version)
        answer = await self._ask(pool, lambda to: to.model_ready(request, timeout=ASK_TIMEOUT_S))
        return answer is not None and bool(answer.ready)

    async def live(self, pool: Pool) -> bool:
        """Whether the pool's worker answers at all."""
        request = messages.ServerLiveRequest()
        answer = await self._ask(pool, lambda to: to.server_live(request, timeout=ASK_TIMEOUT_S))
        return answer is not None and bool(answer.live)

    async def aclose(self) -> None:
        """Close the connections; calls under way end as `EngineUnavailable`."""
        await self._connections.aclose()

    async def __aenter__(self) -> Self:
        """Nothing is connected yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        await self.aclose()

    async def _one(self, place: Place, request: InferenceRequest) -> Result | EngineError:
        """The outcome of one item; of several samples all as one."""
        deadline_at = _deadline_at(request)
        if place.model.task is not Task.TEXT:
            slots = asyncio.Semaphore(place.model.slots)
            return await self._in_slots(place, request, deadline_at, slots)
        try:
            item = _text_item(place, request, deadline_at)
        except EngineError as error:
            return error
        return await only_text(self._connections.to(place.pool.endpoint), place, item)

    async def _texts(
        self, place: Place, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[Outcome, None]:
        items: list[TextItem] = []
        for request in requests:
            try:
                items.append(_text_item(place, request, _deadline_at(request)))
            except EngineError as error:
                yield request.id, error
        batch = TextBatch(self._connections.to(place.pool.endpoint), place, items)
        async with aclosing(batch.outcomes()) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def _side_by_side(
        self, place: Place, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[Outcome, None]:
        slots = asyncio.Semaphore(place.model.slots)

        async def run(request: InferenceRequest, deadline_at: float) -> Outcome:
            return request.id, await self._in_slots(place, request, deadline_at, slots)

        tasks = [asyncio.create_task(run(request, _deadline_at(request))) for request in requests]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            for unfinished in tasks:
                unfinished.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _in_slots(
        self,
        place: Place,
        request: InferenceRequest,
        deadline_at: float,
        slots: asyncio.Semaphore,
    ) -> Result | EngineError:
        answer = self._embed if place.model.task is Task.EMBED else self._generate
        return await answer(place, request, deadline_at, slots)

    async def _embed(
        self,
        place: Place,
        request: InferenceRequest,
        deadline_at: float,
        slots: asyncio.Semaphore,
    ) -> Embeddings | EngineError:
        connection = self._connections.to(place.pool.endpoint)
        try:
            async with slots:
                return await embedding.embed(connection, place, request, deadline_at)
        except EngineError as error:
            return error

    async def _generate(
        self,
        place: Place,
        request: InferenceRequest,
        deadline_at: float,
        slots: asyncio.Semaphore,
    ) -> Completion | EngineError:
        """All samples of a request as one; the first that fails is what becomes of it."""
        value = request.input
        try:
            if value.samples == 1:
                return await self._sample(place, request, deadline_at, slots)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._sample(place, each, deadline_at, slots))
                    for each in (
                        replace(request, input=value.sample(number))
                        for number in range(value.samples)
                    )
                ]
            return merged([task.result() for task in tasks])
        except EngineError as error:
            return error
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            if isinstance(first, EngineError):
                return first
            raise

    async def _sample(
        self,
        place: Place,
        request: InferenceRequest,
        deadline_at: float,
        slots: asyncio.Semaphore,
    ) -> Completion:
        try:
            async with asyncio.timeout_at(deadline_at):
                await slots.acquire()
        except TimeoutError as error:
            raise failures.timed_out() from error
        try:
            return await generation.collect(self._deltas(place, request, deadline_at))
        finally:
            slots.release()

    def _deltas(
        self,
        place: Place,
        request: InferenceRequest,
        deadline_at: float,
        *,
        stream: bool = False,
    ) -> AsyncGenerator[Delta, None]:
        """The generation of a request, not yet begun.

        Raises:
            EngineError: there is nothing to generate from.
        """
        value = request.input
        prompt = chat.prompt_of(place.model, request)
        encoded = _encoded(prompt) if isinstance(prompt, str) else prompt
        try:
            message = generation_request(
                place.model, request.id, encoded, value.parameters, stream, request.priority
            )
        except OverflowError as error:
            raise InvalidInput("prompt: it has ids that no token has", param="prompt") from error
        except (TypeError, ValueError) as error:
            raise InvalidInput("parameters: not JSON", param="parameters") from error
        top = value.parameters.get("logprobs")
        return generation.deltas(
            self._connections.to(place.pool.endpoint),
            place,
            message,
            deadline_at=deadline_at,
            secrets=[
                *([prompt] if isinstance(prompt, str) else []),
                *(turn.content for turn in value.messages),
            ],
            top_logprobs=top if isinstance(top, int) else 0,
        )

    async def _ask(self, pool: Pool, ask: Callable[[Service], Awaitable[Any]]) -> Any:
        """A worker's answer, or None if there is none."""
        try:
            line = await self._connections.to(pool.endpoint).line()
            return await ask(line.service)
        except (Unreachable, grpc.aio.AioRpcError):
            return None


def _place(model: ModelSpec, pool: Pool) -> Place:
    """The model as the pool's engines have it: what is more they would refuse."""
    if pool.extensions is not None:
        model = replace(model, extensions=pool.extensions_of(model))
    return Place(model, pool)


def _deadline_at(request: InferenceRequest) -> float:
    return asyncio.get_running_loop().time() + request.timeout_s


def _text_item(place: Place, request: InferenceRequest, deadline_at: float) -> TextItem:
    text = _encoded(chat.text_of(place.model, request))
    return TextItem(request.id, text, deadline_at, request.priority)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("the input is not valid Unicode") from error
