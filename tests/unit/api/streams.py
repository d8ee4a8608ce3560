"""Reading a streamed answer as it comes, event by event."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from synapse.api.resolver import Api, Response


async def opened(
    api: Api, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> Response:
    """The response to a streaming request, with its chunks still to be read."""
    event = {
        "httpMethod": "POST",
        "path": path,
        "headers": headers or {},
        "multiValueHeaders": {name: [value] for name, value in (headers or {}).items()},
        "requestContext": {"path": path, "requestId": "req-1"},
        "body": json.dumps({"stream": True, **body}),
    }
    return await api.respond(event, None)


def chunks_of(response: Response) -> AsyncGenerator[bytes, None]:
    assert response.chunks is not None, response.body
    return response.chunks


async def events(response: Response) -> list[Any]:
    """All events: their JSON, or their text where it is none ([DONE]); comments are no events."""
    wire = b"".join([chunk async for chunk in chunks_of(response)])
    parts = wire.decode().split("\n\n")
    return [_read(part) for part in parts if part.startswith("data: ")]


def texts(told: Sequence[Any]) -> dict[int, str]:
    """The text of each choice."""
    found: dict[int, str] = {}
    for choice in (c for event in told if isinstance(event, dict) for c in event["choices"]):
        piece = choice.get("text") or choice.get("delta", {}).get("content") or ""
        found[choice["index"]] = found.get(choice["index"], "") + piece
    return found


def _read(part: str) -> Any:
    data = part.removeprefix("data: ")
    return json.loads(data) if data.startswith("{") else data
