"""Bodies that a route takes as they come in: not parsed beforehand, and not whole in memory."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

EVENT_KEY = "incoming"
"""Where a front door that streams puts a body's chunks in the event."""


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


async def _whole(event: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """What API Gateway sends: all of it, text or base64."""
    body = event.get("body") or ""
    yield b64decode(body) if event.get("isBase64Encoded") else body.encode()
