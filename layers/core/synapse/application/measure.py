"""One measurement of a worker: so many callers, each of whom asks again once it has its answer."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

from synapse.domain.errors import EngineError
from synapse.domain.inference import Completion, ModelInput, Result
from synapse.domain.job import JobId
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool
from synapse.domain.profiling import MIN_SAMPLES, STABLE_SAMPLES, Cell, Measurement, is_stable
from synapse.ports import InferenceRequest, StreamingEngine

ITEM_TIMEOUT_S = 60.0
LEAST_S = 0.25
"""A machine's mood changes in tens of milliseconds: a shorter look would be at one of them."""

PATIENCE = 3
"""How many times its limit a crowd may take until each of its callers has had an answer."""

MAX_FAILED = 3
PAUSE_S = 0.1
"""After a failure, so that a worker that refuses is not flooded."""

MAX_SAMPLES = 2000
BYTES_PER_TOKEN = 4

WORDS = (
    *("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world"),
    *("school", "state", "family", "student", "group", "country", "problem", "hand", "part"),
    *("place", "case", "week", "company", "system", "program", "question", "work", "number"),
    *("night", "point", "home", "water", "room", "mother", "area", "money", "story", "fact"),
)
"""Each about a token of any vocabulary."""


@dataclass(frozen=True, slots=True)
class _Answer:
    first_ms: float | None
    total_ms: float
    prompt_tokens: int
    output_tokens: int


Ask = Callable[[int], Awaitable[_Answer]]


async def measure(
    engine: StreamingEngine,
    spec: ModelSpec,
    pool: Pool,
    cell: Cell,
    limit_s: float,
    most_s: float = math.inf,
) -> Measurement:
    """Keep `cell.in_flight` items under way until the median is known, or `limit_s` has passed.

    Each caller's first answer is for warming up, and after it each pauses for a moment, so that
    not all ask at the same time for ever. What is asked from then on counts, and what is answered
    makes the throughput. Beyond the limit it goes on until there are a few answers, or none are
    to be expected, or `most_s` have passed.
    """
    ask = _asking(engine, spec, pool, cell)
    crowd = _Crowd(cell, ask, limit_s, most_s)
    return await crowd.measured()


class _Crowd:
    """The callers of one measurement, and the answers that they have had."""

    def __init__(self, cell: Cell, ask: Ask, limit_s: float, most_s: float) -> None:
        self._cell = cell
        self._ask = ask
        self._now = asyncio.get_running_loop().time
        self._began_at = self._now()
        self._limit_s = limit_s
        self._most_s = min(most_s, limit_s + MIN_SAMPLES * ITEM_TIMEOUT_S)
        self._answers: list[_Answer] = []
        self._warm = 0
        self._full_at: float | None = None
        self._answered = 0
        self._first_at = self._last_at = 0.0
        self._failed = 0
        self._look_at = max(STABLE_SAMPLES, 2 * cell.in_flight)
        self._enough = asyncio.Event()

    async def measured(self) -> Measurement:
        callers = [
            asyncio.create_task(self._call(number)) for number in range(self._cell.in_flight)
        ]
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._most_s):
                    await self._enough.wait()
        finally:
            for caller in callers:
                caller.cancel()
            ends = await asyncio.gather(*callers, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
        return self._measurement()

    async def _call(self, serial: int) -> None:
        is_warm = False
        try:
            while True:
                began_at = self._now()
                answer = await self._asked(serial)
                serial += self._cell.in_flight
                if answer is None:
                    await asyncio.sleep(PAUSE_S)
                elif is_warm:
                    self._note(began_at, answer)
                else:
                    is_warm = True
                    if self._cell.in_flight > 1:
                        await asyncio.sleep(random.uniform(0, answer.total_ms / 1000))
                    self._warm += 1
                    if self._warm == self._cell.in_flight:
                        self._full_at = self._now()
        except Exception:
            self._enough.set()
            raise

    async def _asked(self, serial: int) -> _Answer | None:
        """An answer; None if there was none. After a few of those, no more is to be expected."""
        try:
            return await self._ask(serial)
        except EngineError:
            self._failed += 1
            if self._failed >= MAX_FAILED:
                self._enough.set()
            return None

    def _note(self, began_at: float, answer: _Answer) -> None:
        if self._enough.is_set() or self._full_at is None:
            return
        self._last_at = self._now()
        if self._answered == 0:
            self._first_at = self._last_at
        self._answered += 1
        if began_at < self._full_at:
            return
        self._answers.append(answer)
        count = len(self._answers)
        so_far_s = self._now() - self._began_at
        is_late = so_far_s >= self._limit_s
        # The first few of a crowd are its quickest: one of each caller makes a median.
        fair = count >= self._cell.in_flight or so_far_s >= PATIENCE * self._limit_s
        if count >= MAX_SAMPLES or (is_late and fair and count >= MIN_SAMPLES):
            self._enough.set()
        elif count >= self._look_at:
            # Not after each answer: sorting them would be what is measured.
            self._look_at = count * 5 // 4 + 1
            if so_far_s >= LEAST_S and is_stable([each.total_ms for each in self._answers]):
                self._enough.set()

    def _rate(self) -> float:
        """From answer to answer: a window that begins or ends anywhere holds one too many."""
        counted_s = self._last_at - self._first_at
        return (self._answered - 1) / counted_s if counted_s > 0 else 0.0

    def _measurement(self) -> Measurement:
        answers, firsts = self._answers, [each.first_ms for each in self._answers]
        return Measurement(
            cell=self._cell,
            prompt_tokens=median(each.prompt_tokens for each in answers) if answers else 0,
            output_tokens=median(each.output_tokens for each in answers) if answers else 0,
            total_ms=tuple(each.total_ms for each in answers),
            first_ms=tuple(first for first in firsts if first is not None),
            items_per_s=self._rate(),
            took_s=self._now() - self._began_at,
            failed=self._failed,
        )


def _asking(engine: StreamingEngine, spec: ModelSpec, pool: Pool, cell: Cell) -> Ask:
    """How one item is asked for, by what the model does; raises EngineError."""
    now = asyncio.get_running_loop().time
    chance = random.Random()  # seldom the same prompt: caches would answer it

    async def write(serial: int) -> _Answer:
        request = _request(serial, _input(spec, cell, chance))
        began_at, first_at = now(), None
        prompt_tokens = output_tokens = 0
        async for delta in engine.stream(spec, pool, request):
            if first_at is None and delta.completion_tokens:
                first_at = now()
            prompt_tokens = max(prompt_tokens, delta.prompt_tokens)
            output_tokens += delta.completion_tokens
        total_ms = 1000 * (now() - began_at)
        first_ms = total_ms if first_at is None else 1000 * (first_at - began_at)
        return _Answer(first_ms, total_ms, prompt_tokens, output_tokens)

    async def answer(serial: int) -> _Answer:
        request = _request(serial, _input(spec, cell, chance))
        began_at = now()
        [outcome] = [each async for _, each in engine.infer(spec, pool, [request])]
        total_ms = 1000 * (now() - began_at)
        if isinstance(outcome, EngineError):
            raise outcome
        return _Answer(None, total_ms, *_tokens(request.input, outcome))

    return write if spec.task is Task.GENERATE else answer


def _request(serial: int, value: ModelInput) -> InferenceRequest:
    return InferenceRequest(JobId(f"profile-{serial}"), ITEM_TIMEOUT_S, value)


def _input(spec: ModelSpec, cell: Cell, chance: random.Random) -> ModelInput:
    if spec.task is Task.TEXT:
        size = cell.prompt_tokens * BYTES_PER_TOKEN
        return ModelInput(" ".join(chance.choices(WORDS, k=size))[:size])
    text = " ".join(chance.choices(WORDS, k=cell.prompt_tokens))
    if spec.task is Task.EMBED:
        return ModelInput(inputs=(text,))
    parameters = {"max_tokens": cell.output_tokens, "ignore_eos": True, "temperature": 0.0}
    return ModelInput(text, parameters=parameters)


def _tokens(value: ModelInput, outcome: Result) -> tuple[int, int]:
    """What the engine counted; where it counts nothing, what everybody else estimates by."""
    written = outcome.usage.completion_tokens if isinstance(outcome, Completion) else 0
    return outcome.usage.prompt_tokens or value.size_bytes // BYTES_PER_TOKEN, written
