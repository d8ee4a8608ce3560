"""What it costs to ask who calls: the same requests with keys and without, taking turns."""

from __future__ import annotations

import asyncio
import http.client
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.server import Running, server
from synapse.adapters.local.access_database import AccessDatabase
from synapse.adapters.local.keys import SqliteKeyStore
from synapse.api.gate import anyone, by_credential
from synapse.api.resolver import Api, Reply
from synapse.application.authentication import Authenticator
from synapse.application.keys import Keys, KeyWish
from synapse.domain.access import ANYONE, Limits, Principal, Scope, Tenant

KEYS = 1000
"""How many there are: one of them is sent."""

PATH = "/v1/models"


@dataclass(frozen=True, slots=True)
class Compared:
    """Medians of one place where it is measured, in ms; the overhead is that of the pairs."""

    where: str
    requests: int
    on_ms: float
    off_ms: float
    overhead_ms: float


def measure(requests: int) -> list[Compared]:
    """In process, where nothing else is measured, and over HTTP, as a caller sees it."""
    return [asyncio.run(_in_process(requests)), _over_http(requests)]


async def _in_process(requests: int) -> Compared:
    with tempfile.TemporaryDirectory(prefix="synapse-bench-") as folder:
        database = AccessDatabase.open(Path(folder, "access.db"))
        store = SqliteKeyStore(database)
        keys = Keys(store, _no_models, time.time)
        await store.describe(Tenant("default", Limits(requests_per_minute=10**9)))
        for _ in range(KEYS):
            made = await keys.create(ANYONE, KeyWish("bench"))
        asked = _one_route(Api(by_credential(Authenticator(store, time.time))))
        free = _one_route(Api(anyone))
        event = _event(made.text)
        took_on, took_off = list[float](), list[float]()
        for _ in range(requests):
            took_off.append(await _timed(free, event))
            took_on.append(await _timed(asked, event))
        await database.close()
        return _compared("in process", took_on, took_off)


def _over_http(requests: int) -> Compared:
    with server("echo", auth="on") as asked, server("echo") as free:
        key = _a_key(asked)
        ask, ask_free = _asker(asked, key), _asker(free, key)
        took_on, took_off = list[float](), list[float]()
        for _ in range(requests):
            took_off.append(ask_free())
            took_on.append(ask())
        return _compared("over HTTP", took_on, took_off)


def _compared(where: str, on_s: list[float], off_s: list[float]) -> Compared:
    differences_s = [on - off for on, off in zip(on_s, off_s, strict=True)]
    medians_ms = [statistics.median(each) * 1000 for each in (on_s, off_s, differences_s)]
    return Compared(where, len(on_s), *medians_ms)


def _one_route(api: Api) -> Api:
    @api.handles("GET", PATH, scope=Scope.INFERENCE)
    async def models(caller: Principal) -> Reply:
        return Reply({"tenant": caller.tenant})

    return api


async def _timed(api: Api, event: dict[str, Any]) -> float:
    started = time.perf_counter()
    response = await api.respond(event, None)
    took_s = time.perf_counter() - started
    assert response.status == 200
    return took_s


def _event(key: str) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {key}"}
    return {
        "httpMethod": "GET",
        "path": PATH,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": {},
        "multiValueQueryStringParameters": {},
        "requestContext": {"stage": "$default", "path": PATH, "requestId": "bench"},
        "body": "",
        "isBase64Encoded": False,
    }


def _asker(running: Running, key: str) -> Callable[[], float]:
    """Asks once over a connection that stays open; returns how long it took."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)

    def ask() -> float:
        started = time.perf_counter()
        connection.request("GET", PATH, headers={"Authorization": f"Bearer {key}"})
        response = connection.getresponse()
        response.read()
        took_s = time.perf_counter() - started
        assert response.status == 200
        return took_s

    return ask


def _a_key(running: Running) -> str:
    program = str(Path(sys.executable).parent / "synapse")
    command = [program, "keys", "create", "bench", "--data-dir", str(running.folder)]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    return made.stdout.strip()


async def _no_models() -> list[Any]:
    return []
