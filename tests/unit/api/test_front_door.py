"""What a trusted front door tells of a request, and what clients cannot make it tell."""

from __future__ import annotations

import json
from typing import Any

from synapse.api.asgi import AsgiApp, Message
from synapse.api.resolver import Api, Reply

HEADER = "x-front-door"
CONTEXT = {"requestId": "the-gateway's-id", "identity": {"apiKeyId": "key-1"}}


def an_api() -> Api:
    api = Api()

    @api.handles("GET", "/hello", scope=None)
    async def hello() -> Reply:
        return Reply({})

    return api


async def request_id(app: AsgiApp, context: dict[str, Any], name: str = HEADER) -> str:
    """The id under which a request with that context is answered."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    header = (name.encode(), json.dumps(context).encode())
    scope = {"type": "http", "method": "GET", "path": "/hello", "query_string": b""}
    await app({**scope, "headers": [header]}, receive, send)
    assert sent[0]["status"] == 200
    headers: dict[bytes, bytes] = dict(sent[0]["headers"])
    return headers[b"x-request-id"].decode()


async def test_a_request_has_the_id_that_the_front_door_gave_it() -> None:
    app = AsgiApp(an_api(), context_header=HEADER)

    assert await request_id(app, CONTEXT) == "the-gateway's-id"


async def test_where_there_is_no_front_door_nobody_is_believed() -> None:
    for name in (HEADER, ""):
        assert await request_id(AsgiApp(an_api()), CONTEXT, name) != "the-gateway's-id"


async def test_a_front_door_that_gives_no_id_leaves_it_to_us() -> None:
    app = AsgiApp(an_api(), context_header=HEADER)

    assert (await request_id(app, {"stage": "dev"})).startswith("req-")
