"""What goes wrong with the AWS calls of deployed functions, on demand; run by MiniStack's Python.

`PUT /_faults` with `{"seed": 7, "rates": {"throttled": 0.1}}` sets how often, and answers what has
happened since it was set before. Calls that the tests make themselves are not harmed.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ministack import app  # type: ignore[import-not-found]
from ministack.services import s3  # type: ignore[import-not-found]

Response = tuple[int, Mapping[str, str], Any]
Handler = Callable[..., Awaitable[Response]]

PATH = "/_faults"
OF_FUNCTIONS = "Credential=ASIA"
"""How the keys of roles begin."""

SERVICES = ("dynamodb", "sqs", "states")

SENDS = ("SendMessage", "SendMessageBatch")
ONLY = {
    "twice": (*SENDS, "StartExecution"),
    "late": SENDS,
    "partial": ("SendMessageBatch",),
}
"""What goes wrong with these operations only; the rest does with any.

throttled, broken: not done. lost: done, and nobody is told. slow: done a little later. twice: a
message that is delivered twice, an execution that is begun twice. late: messages that others
overtake. partial: of a batch of messages half is taken.
"""

SLOW_S = (0.2, 3.0)
LATE_S = (1, 4)

_app = app.app
_s3 = s3.handle_request


@dataclass
class Faults:
    """What is to happen, and what has."""

    rates: Mapping[str, float] = field(default_factory=dict)
    random: random.Random = field(default_factory=random.Random)
    happened: Counter[str] = field(default_factory=Counter)

    def draw(self, operation: str) -> str:
        """What becomes of a call; nothing, in most cases."""
        drawn = self.random.random()
        for kind, rate in self.rates.items():
            if operation not in ONLY.get(kind, (operation,)):
                continue
            if drawn < rate:
                self.happened[kind] += 1
                return kind
            drawn -= rate
        return ""


faults = Faults()


async def application(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
    """MiniStack, and the address by which it is told of faults."""
    if scope["type"] != "http" or scope["path"] != PATH:
        await _app(scope, receive, send)
        return
    body, is_all = b"", False
    while not is_all:
        message = await receive()
        body, is_all = body + message.get("body", b""), not message.get("more_body")
    answer = json.dumps(_set(json.loads(body))).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": answer})


def _set(asked: Mapping[str, Any]) -> Mapping[str, int]:
    global faults
    before, faults = faults, Faults(asked["rates"], random.Random(asked["seed"]))
    return before.happened


def harmed(handle: Handler, *, is_s3: bool = False) -> Handler:
    """A service's handler, with its share of faults."""

    async def handler(
        method: str, path: str, headers: Mapping[str, str], body: bytes, *more: Any, **named: Any
    ) -> Response:
        async def do(body: bytes) -> Response:
            return await handle(method, path, headers, body, *more, **named)

        if not faults.rates or OF_FUNCTIONS not in headers.get("authorization", ""):
            return await do(body)
        operation = headers.get("x-amz-target", "").rpartition(".")[2]
        return await _what_becomes_of(faults.draw(operation), do, body, is_s3)

    return handler


async def _what_becomes_of(
    kind: str, do: Callable[[bytes], Awaitable[Response]], body: bytes, is_s3: bool
) -> Response:
    match kind:
        case "throttled":
            return _error("SlowDown", 503) if is_s3 else _refusal("ThrottlingException", 400)
        case "broken" | "lost":
            if kind == "lost":
                await do(body)
            return _error("InternalError", 500) if is_s3 else _refusal("InternalServerError", 500)
        case "slow":
            await asyncio.sleep(faults.random.uniform(*SLOW_S))
        case "twice":
            first = await do(body)
            await do(body)
            return first
        case "late":
            asked = json.loads(body)
            for message in asked.get("Entries", [asked]):
                message["DelaySeconds"] = faults.random.randint(*LATE_S)
            return await do(json.dumps(asked).encode())
        case "partial":
            return await _in_part(json.loads(body), do)
    return await do(body)


async def _in_part(asked: dict[str, Any], do: Callable[[bytes], Awaitable[Response]]) -> Response:
    """The first half of the messages, rounded down, is in the queue; the rest is refused."""
    entries = asked["Entries"]
    half = len(entries) // 2
    taken: dict[str, Any] = {"Successful": []}
    if half:
        _, _, body = await do(json.dumps({**asked, "Entries": entries[:half]}).encode())
        taken = json.loads(body)
    refused = [
        {"Id": entry["Id"], "Code": "InternalError", "SenderFault": False}
        for entry in entries[half:]
    ]
    return _answer({**taken, "Failed": [*taken.get("Failed", []), *refused]}, 200)


def _refusal(code: str, status: int) -> Response:
    return _answer({"__type": code, "message": "by the tests"}, status)


def _answer(body: Mapping[str, Any], status: int) -> Response:
    return status, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(body).encode()


def _error(code: str, status: int) -> Response:
    body = f"<Error><Code>{code}</Code></Error>"
    return status, {"Content-Type": "application/xml"}, body.encode()


def install() -> None:
    """Put the faults between MiniStack's door and its services."""
    app.app = application
    for service in SERVICES:
        app.SERVICE_HANDLERS[service] = harmed(app.SERVICE_HANDLERS[service])
    s3.handle_request = harmed(_s3, is_s3=True)
