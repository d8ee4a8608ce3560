"""Bodies on their way in: of a caller who was let in all of it, or piece by piece."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from synapse.domain.errors import InvalidRequest, PayloadTooLarge

EVENT_KEY = "incoming"
"""Where a front door that streams puts a body's chunks in the event."""

MAX_BODY_BYTES = 6 * 1024 * 1024
"""What a Lambda proxy event can carry, so that both targets refuse alike."""


class NotText(InvalidRequest):
    """A body is not UTF-8."""

    code = "invalid_encoding"


@dataclass(frozen=True, slots=True)
class Incoming:
    """A body on its way in, and the request's headers, their names in lower case.

    `address` is where the request is from: of a proxy's, if there is one before us on one machine.
    """

    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]
    address: str = ""


def incoming_of(event: Mapping[str, Any]) -> Incoming:
    """The body of a proxy event."""
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    identity = (event.get("requestContext") or {}).get("identity") or {}
    address = str(identity.get("sourceIp") or "")
    return Incoming(headers, event.get(EVENT_KEY) or _whole(event), address)


async def with_body(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The event with all of its body, which is read now where a front door has left that to us.

    Raises:
        PayloadTooLarge: it is larger than `MAX_BODY_BYTES`; the rest is not read.
        NotText: it is not UTF-8.
    """
    coming: AsyncGenerator[bytes, None] | None = event.get(EVENT_KEY)
    if coming is None:
        return event
    pieces: list[bytes] = []
    size = 0
    async with aclosing(coming):
        async for piece in coming:
            size += len(piece)
            if size > MAX_BODY_BYTES:
                raise PayloadTooLarge(f"body: at most {MAX_BODY_BYTES} bytes are accepted")
            pieces.append(piece)
    try:
        return {**event, "body": b"".join(pieces).decode()}
    except UnicodeDecodeError as error:
        raise NotText("body: not UTF-8 text") from error


def without_body(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The event of somebody who was not asked who he is: nothing that he sends is looked at."""
    return {**event, "body": None}


async def _whole(event: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """What API Gateway sends: all of it, text or base64."""
    body = event.get("body") or ""
    yield b64decode(body) if event.get("isBase64Encoded") else body.encode()
