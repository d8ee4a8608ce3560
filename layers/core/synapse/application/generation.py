"""One admitted request: its samples at the engine, and what is cleared away at its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Self

from synapse.application.attempts import Attempts
from synapse.domain.answer import Timings
from synapse.domain.errors import (
    EngineError,
    EngineTimeout,
    InvalidRequest,
    SynapseError,
    Unavailable,
)
from synapse.domain.inference import Completion, Delta, ModelInput, Result
from synapse.domain.job import JobId, SlaTier, Usage, urgency
from synapse.domain.limiting import Standing
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool
from synapse.domain.receipt import Receipt
from synapse.domain.routing import Decision
from synapse.ports import InferenceRequest, StreamingEngine
from synapse.request_ids import REQUEST_ID

logger = logging.getLogger(__name__)

MAX_UNREAD = 64
"""Deltas kept for a slow reader; beyond that the engine's stream is no longer read."""

CANCELLED = "cancelled"
REFUSED = "refused"
"""Not admitted, or taken back since another of the same request was not."""

WHOLE = "stop"
"""Why it ended where nothing but the end was to come: of vectors no engine says so."""


@dataclass(frozen=True, slots=True)
class SampleDelta:
    """What is added to one of the samples."""

    index: int
    delta: Delta


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that was let in: what to ask of whom, and until when (by the loop's clock).

    `attempts` end when a worker must have taken it, `deadline_at` is when it must be whole.
    `decision` is why its pools are tried in that order, `standing` what is left of its caller's
    limits.
    """

    id: str
    spec: ModelSpec
    input: ModelInput
    tier: SlaTier
    deadline_at: float
    attempts: Attempts
    decision: Decision
    standing: Standing | None = None


class Generation:
    """The answer to one request while it is being written.

    An async context manager: leaving it cancels what is unfinished at the engine and gives its
    slots back. Either `deltas` or `result` is asked for, once.
    """

    def __init__(
        self,
        admitted: Admitted,
        engine: StreamingEngine,
        on_end: Callable[[Generation], Awaitable[None]],
    ) -> None:
        self.spec: ModelSpec = admitted.spec
        self.pool: Pool = admitted.attempts.pools[0]
        self.standing = admitted.standing
        self.usage = Usage()
        self.outcome = CANCELLED
        self.told_as = ""
        """What the operator is told instead of the outcome, where others ended it."""
        self.is_success = False
        self.receipt: Receipt | None = None
        """What it cost, once it has been left."""
        self._admitted = admitted
        self._engine = engine
        self._on_end = on_end
        # Not by the loop's time: uvloop's is of whole milliseconds, and many a model is faster.
        self._began_at = time.monotonic()
        self._held_s: float | None = None
        self._first_token_s: float | None = None
        self._total_s: float | None = None
        self._pumps: list[asyncio.Task[None]] = []
        self._ends: list[SynapseError | None] = []
        self._reason = WHOLE
        self._is_asked = self._is_refused = False
        self._closed = False

    @property
    def timings(self) -> Timings:
        """How long it took, so far or in all."""
        total_s = self._elapsed_s() if self._total_s is None else self._total_s
        held_s = total_s if self._held_s is None else self._held_s
        return Timings(held_s, self._first_token_s, total_s)

    @property
    def is_taken(self) -> bool:
        """Whether a worker has it, or had it."""
        return self._held_s is not None

    @property
    def was_withdrawn(self) -> bool:
        """Whether nobody asked for its answer: others of the same request were refused."""
        return not self._is_asked

    @property
    def was_refused(self) -> bool:
        """Whether no worker took it, and not because its caller went."""
        return self.was_withdrawn or (self._is_refused and not self.usage.total_tokens)

    @property
    def was_cut(self) -> bool:
        """Whether its caller went, or its time was up, while a worker had it."""
        is_cut = self.outcome in (CANCELLED, EngineTimeout.code)
        return self.is_taken and not self.is_success and is_cut

    def end_with(self, error: SynapseError) -> None:
        """It is about to be left because another of the same request failed so.

        It counts as that one does, and not as cancelled: nobody went away.
        """
        if not self._closed and not self.is_success and self.outcome == CANCELLED:
            was_let_in = self._is_asked or isinstance(error, EngineError)
            self.told_as = error.code if was_let_in else REFUSED

    def receipt_so_far(self) -> Receipt:
        """What is known of its receipt while it is being written."""
        if not self.is_taken:
            return Receipt(self.spec.version)
        pool, queue_ms = self.pool, self.timings.held_s * 1000
        return Receipt(
            self.spec.version,
            queue_ms,
            pool=pool.name,
            accelerator=pool.accelerator,
            worker=pool.worker,
        )

    @property
    def keeps_tier(self) -> bool:
        """Whether it is answered by a pool that was predicted to keep the promise of its tier."""
        return self._admitted.decision.of(self.pool.name).fits

    async def deltas(self) -> AsyncGenerator[SampleDelta, None]:
        """The samples as they are written, interleaved as they come.

        Raises:
            InvalidRequest: there is nothing to generate from.
            Unavailable: no worker took the request in time.
            EngineError: a sample was refused, or broke off.
        """
        self._is_asked = True
        if self._admitted.input.inputs:
            raise InvalidRequest("inputs are embedded, not continued", param="input")
        unread: asyncio.Queue[SampleDelta | SynapseError | None] = asyncio.Queue(MAX_UNREAD)
        samples = self._admitted.input.samples
        self._pumps = [asyncio.create_task(self._pump(i, unread)) for i in range(samples)]
        unfinished = samples
        while unfinished:
            each = await unread.get()
            if isinstance(each, SynapseError):
                self._failed(each)
                raise each
            if each is None:
                unfinished -= 1
            else:
                yield each

    async def result(self) -> Result:
        """The whole answer at once.

        Raises:
            Unavailable: no worker took the request in time.
            EngineError: it was refused, or broke off.
        """
        self._is_asked = True
        value = self._admitted.input
        attempts = self._admitted.attempts
        try:
            self.pool, result = await attempts.first(lambda pool: self._whole(pool, value))
        except SynapseError as error:
            self._failed(error)
            raise
        self.usage = result.usage
        self._succeeded(result.finish_reason if isinstance(result, Completion) else WHOLE)
        return result

    async def aclose(self) -> None:
        """Cancel what is unfinished and give the slots back; again does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._total_s is None:
            self._total_s = self._elapsed_s()
        for pump in self._pumps:
            pump.cancel()
        try:
            await asyncio.gather(*self._pumps, return_exceptions=True)
        finally:
            await self._on_end(self)

    async def __aenter__(self) -> Self:
        """The generation itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.aclose()

    async def _pump(
        self, index: int, unread: asyncio.Queue[SampleDelta | SynapseError | None]
    ) -> None:
        """Read one sample's stream, so that a reader may give up waiting without breaking it."""
        last: SynapseError | None = None
        try:
            parts = self._admitted.attempts.run(lambda pool: self._sample(pool, index))
            async with aclosing(parts):
                async for pool, delta in parts:
                    self._note(pool, delta)
                    await unread.put(SampleDelta(index, delta))
        except SynapseError as error:
            last = error
        except Exception as error:
            about = {"request": self._admitted.id, "request_id": REQUEST_ID.get()}
            logger.exception("a generation broke off", extra=about)
            last = EngineError("the generation broke off for a reason of ours; see the log")
            last.__cause__ = error
        self._ended(last)
        await unread.put(last)

    def _ended(self, error: SynapseError | None) -> None:
        """Note that a sample has ended; the last ends the whole, whenever its reader sees it."""
        self._ends.append(error)
        if len(self._ends) < len(self._pumps):
            return
        self._total_s = self._elapsed_s()
        if not any(self._ends):
            self._succeeded(self._reason)

    def _note(self, pool: Pool, delta: Delta) -> None:
        if self._first_token_s is None:
            self._first_token_s = self._elapsed_s()
        self.pool = pool
        self._reason = delta.finish_reason or self._reason
        self.usage = Usage(
            max(self.usage.prompt_tokens, delta.prompt_tokens),
            self.usage.completion_tokens + delta.completion_tokens,
            self.usage.cached_tokens if delta.cached_tokens is None else delta.cached_tokens,
        )

    async def _sample(self, pool: Pool, index: int) -> AsyncGenerator[Delta, None]:
        """One sample from one pool; a model that cannot stream gives it in one piece."""
        value = self._admitted.input.sample(index)
        if self.spec.task is not Task.GENERATE:
            yield _as_delta(await self._whole(pool, value))
            return
        self._held_s = self._elapsed_s()
        request = self._request(f"{self._admitted.id}-{index}", value)
        async with aclosing(self._engine.stream(self.spec, pool, request)) as deltas:
            async for delta in deltas:
                yield delta

    async def _whole(self, pool: Pool, value: ModelInput) -> Result:
        self._held_s = self._elapsed_s()
        request = self._request(self._admitted.id, value)
        return await self._engine.answer(self.spec, pool, request)

    def _request(self, name: str, value: ModelInput) -> InferenceRequest:
        left_s = self._admitted.deadline_at - asyncio.get_running_loop().time()
        tier = self._admitted.tier
        return InferenceRequest(JobId(name), max(0.0, left_s), value, urgency(tier), tier)

    def _failed(self, error: SynapseError) -> None:
        self.outcome, self._is_refused = error.code, isinstance(error, Unavailable)

    def _succeeded(self, reason: str) -> None:
        self.is_success, self.outcome = True, reason
        if self._total_s is None:
            self._total_s = self._elapsed_s()

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began_at


def _as_delta(result: Result) -> Delta:
    if not isinstance(result, Completion):
        raise EngineError("the engine gave vectors instead of text")
    usage = result.usage
    return Delta(
        text=result.text,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        finish_reason=result.finish_reason,
        cached_tokens=usage.cached_tokens,
        logprobs=result.logprobs,
    )
