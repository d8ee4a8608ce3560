"""Server-sent events: the bytes of an answer that is told while it is being written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Protocol

from synapse.api.errors import INTERNAL_MESSAGE, ToldError, body_of, error_body
from synapse.domain.errors import EngineError, SynapseError
from synapse.domain.inference import Delta
from synapse.request_ids import REQUEST_ID

logger = logging.getLogger(__name__)

EVENT_STREAM = "text/event-stream; charset=utf-8"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
REFUSABLE_S = 0.3
"""How long a stream is held back, so that an early refusal is an HTTP status and not an event."""

HEARTBEAT_S = 5.0
HEARTBEAT = b": waiting for a worker\n\n"
"""A comment: clients skip it, and what stands between sees that the stream is alive."""

STOPPED = error_body(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "the server is stopping; send the request again",
    code="server_stopping",
)

Deltas = AsyncGenerator[tuple[int, Delta], None]


class Writer(Protocol):
    """Writes the events of one answer; what it is asked for may be nothing."""

    def begin(self) -> bytes:
        """What is sent before anything of the answer is there."""
        ...

    def write(self, index: int, delta: Delta) -> bytes:
        """What is to be told of a delta of the choice number `index`."""
        ...

    def end(self) -> bytes:
        """What comes after the last delta."""
        ...

    def failed(self, error: ToldError) -> bytes:
        """What is sent instead of the rest."""
        ...


async def event_stream(deltas: Deltas, writer: Writer) -> AsyncGenerator[bytes, None]:
    """The events of an answer, after one piece of nothing: until then it may still be refused.

    Raises:
        SynapseError: it was, before that first piece.
    """
    async with aclosing(deltas):
        first = asyncio.ensure_future(_first(deltas))
        try:
            await asyncio.wait({first}, timeout=REFUSABLE_S)
            if first.done():
                first.result()
            yield b""
            async with aclosing(_events(first, deltas, writer)) as events:
                async for each in events:
                    yield each
        finally:
            first.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await first


async def _events(
    first: asyncio.Future[tuple[int, Delta]], deltas: Deltas, writer: Writer
) -> AsyncGenerator[bytes, None]:
    try:
        if begun := writer.begin():
            yield begun
        while not first.done():
            yield HEARTBEAT
            await asyncio.wait({first}, timeout=HEARTBEAT_S)
        yield writer.write(*first.result())
        async for index, delta in deltas:
            chunk = writer.write(index, delta)
            if chunk:
                yield chunk
        yield writer.end()
    except SynapseError as error:
        yield writer.failed(body_of(error))
    except Exception:
        logger.exception("a stream broke off", extra={"request_id": REQUEST_ID.get()})
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        yield writer.failed(error_body(status, INTERNAL_MESSAGE, code="internal_error"))


async def _first(deltas: Deltas) -> tuple[int, Delta]:
    async for each in deltas:
        return each
    raise EngineError("the engine gave no answer")
