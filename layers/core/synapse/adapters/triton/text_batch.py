"""A batch for a text model: one call, taken apart only where an item spoils it for the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass

import grpc

from synapse.adapters.triton import failures
from synapse.adapters.triton.connection import (
    Connection,
    Line,
    Unreachable,
    answer_of,
    is_being_cancelled,
)
from synapse.adapters.triton.failures import Place
from synapse.adapters.triton.tensors import UnreadableAnswer, read_texts, text_request
from synapse.domain.errors import EngineError, InvalidInput
from synapse.domain.inference import Completion
from synapse.domain.job import JobId, Usage

FINISH_REASON = "stop"
MAX_CALL_BYTES = 16 * 1024 * 1024
"""Of input in one call; the rest of the batch goes in calls of its own."""


@dataclass(frozen=True, slots=True)
class TextItem:
    """One text on its way through a text model."""

    id: JobId
    text: bytes
    deadline_at: float
    priority: int = 0


Outcome = Completion | EngineError


class TextBatch:
    """The items of a batch that have no outcome yet, and the calls that are to bring it."""

    def __init__(self, connection: Connection, place: Place, items: Sequence[TextItem]) -> None:
        self._connection = connection
        self._place = place
        self._open = {item.id: item for item in items}
        self._calls: dict[asyncio.Task[list[str] | EngineError], Sequence[TextItem]] = {}
        self._now = asyncio.get_running_loop().time

    async def outcomes(self) -> AsyncGenerator[tuple[JobId, Outcome], None]:
        """Each item's outcome once; one whose time is up does not wait for the rest of its call.

        Closing the iterator early cancels the calls at the engine.
        """
        for part in _parts(list(self._open.values()), self._place.model.batch.max_items):
            self._start(part)
        try:
            while self._open:
                deadline_at = min(item.deadline_at for item in self._open.values())
                done, _ = await asyncio.wait(
                    self._calls,
                    timeout=max(0.0, deadline_at - self._now()),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for call in done:
                    for outcome in self._settle(self._calls.pop(call), call.result()):
                        yield outcome
                for outcome in self._expire():
                    yield outcome
        finally:
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)

    def _start(self, part: Sequence[TextItem]) -> None:
        if part:
            self._calls[asyncio.create_task(_call(self._connection, self._place, part))] = part

    def _settle(
        self, part: Sequence[TextItem], answer: list[str] | EngineError
    ) -> Iterator[tuple[JobId, Outcome]]:
        if isinstance(answer, InvalidInput) and len(part) > 1:
            # Which item it was the engine does not say: look for it, half by half.
            still_open = [item for item in part if item.id in self._open]
            middle = (len(still_open) + 1) // 2
            self._start(still_open[:middle])
            self._start(still_open[middle:])
            return
        for at, item in enumerate(part):
            if self._open.pop(item.id, None) is not None:
                yield item.id, answer if isinstance(answer, EngineError) else _done(answer[at])

    def _expire(self) -> Iterator[tuple[JobId, Outcome]]:
        now = self._now()
        for item in [item for item in self._open.values() if item.deadline_at <= now]:
            del self._open[item.id]
            yield item.id, failures.timed_out()


async def only_text(connection: Connection, place: Place, item: TextItem) -> Outcome:
    """The outcome of a text that is sent alone, with no other to wait for."""
    if connection.is_ready:
        # gRPC watches the time of the one call.
        answer = await _call(connection, place, [item])
    else:
        try:
            async with asyncio.timeout_at(item.deadline_at):
                answer = await _call(connection, place, [item])
        except TimeoutError:
            return failures.timed_out()
    return answer if isinstance(answer, EngineError) else _done(answer[0])


async def _call(
    connection: Connection, place: Place, part: Sequence[TextItem]
) -> list[str] | EngineError:
    """The texts of one call in the order of its items, or why there are none."""
    timeout_s = max([item.deadline_at for item in part]) - asyncio.get_running_loop().time()
    line: Line | None = None
    try:
        line = await connection.line()
        urgency = min([item.priority for item in part])
        request = text_request(place.model, [item.text for item in part], urgency)
        call = line.counted(line.service.infer(request, timeout=max(0.0, timeout_s)))
        response = await answer_of(call)
        texts = read_texts(response, len(part))
    except Unreachable:
        return failures.unreachable(place)
    except UnreadableAnswer as error:
        return failures.unreadable(place, error)
    except grpc.aio.AioRpcError as error:
        secrets = [item.text.decode() for item in part]
        return connection.failure(place, error, line, secrets)
    except asyncio.CancelledError:
        if is_being_cancelled():
            raise
        return failures.closed(place)
    connection.touch()
    return texts


def _done(text: str) -> Completion:
    return Completion(text, FINISH_REASON, Usage())


def _parts(items: Sequence[TextItem], max_items: int) -> Iterator[Sequence[TextItem]]:
    part: list[TextItem] = []
    size = 0
    for item in items:
        if part and (len(part) >= max_items or size + len(item.text) > MAX_CALL_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += len(item.text)
    if part:
        yield part
