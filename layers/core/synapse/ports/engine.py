"""Workers, as the use cases see them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from synapse.domain.errors import EngineError
from synapse.domain.inference import Delta, ModelInput, Result
from synapse.domain.job import JobId, SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One item for an engine; `timeout_s` is all the time it has.

    `priority` is on vLLM's scale: lower runs first, 0 is ordinary.
    """

    id: JobId
    timeout_s: float
    input: ModelInput
    priority: int = 0
    tier: SlaTier = SlaTier.SILVER


class InferenceEngine(Protocol):
    """A worker that speaks the Open Inference Protocol as Triton does."""

    def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Result | EngineError], None]:
        """Run all requests concurrently; yield each one's outcome once, as it becomes known.

        Closing the iterator cancels what is unfinished at the engine. Never raises for an item:
        its error is its outcome.
        """
        ...


class StreamingEngine(InferenceEngine, Protocol):
    """A worker that also hands over a generation while it is being written."""

    async def answer(self, model: ModelSpec, pool: Pool, request: InferenceRequest) -> Result:
        """One item as a whole, for somebody who waits for it.

        Being cancelled cancels it at the engine.

        Raises:
            EngineError: the request is refused, or breaks off.
        """
        async with aclosing(self.infer(model, pool, [request])) as outcomes:
            async for _, outcome in outcomes:
                if isinstance(outcome, EngineError):
                    raise outcome
                return outcome
        raise EngineError("the engine gave no answer")

    def stream(
        self, model: ModelSpec, pool: Pool, request: InferenceRequest
    ) -> AsyncGenerator[Delta, None]:
        """One generation (one sample) as it is written; the last delta has a `finish_reason`.

        Closing the iterator cancels the generation at the engine.

        Raises:
            EngineError: the request is refused, or breaks off.
        """
        ...
