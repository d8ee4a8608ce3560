"""Calling the API as API Gateway does."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from synapse.adapters.telemetry.exposition import exposition
from synapse.api.app import create_api
from synapse.api.gate import Identify, anyone
from synapse.api.openai.lines import OpenAiLines
from synapse.api.resolver import Api
from synapse.api.services import Services
from synapse.application.file_batches import FileBatches
from synapse.application.files import Files
from synapse.application.fleet_view import FleetView
from synapse.application.health import pinged_health
from synapse.application.keys import Keys
from synapse.application.uploads import Uploads
from synapse.application.usage_reports import UsageReports
from synapse.application.webhooks import Audience, Webhooks
from synapse.domain.admission import Load
from synapse.domain.file import StoredFile
from tests.fake_file_batches import MemoryFileBatchStore, RecordingFileBatchStarter
from tests.fake_files import MemoryFileStore, MemoryUploadStore
from tests.fake_keys import MemoryKeyStore
from tests.fake_webhooks import MemoryEndpointStore
from tests.unit.application.world import CHAT, World


def api_of(
    world: World,
    identify: Identify = anyone,
    key_store: MemoryKeyStore | None = None,
    max_wait_s: float = 1.0,
) -> Api:
    """The API over a world of fakes."""

    async def metrics() -> str:
        loads = {"echo": Load.of(world.slots.in_flight("echo"), slots=8)}
        depth = await world.queue.depth("echo")
        return exposition(await world.registry.health(), depth, loads)

    numbers = itertools.count(1)

    def new_id() -> str:
        return f"{next(numbers):08d}"

    files = Files(MemoryFileStore(world.clock), world.blobs, world.clock, new_id)
    uploads = Uploads(MemoryUploadStore(), files, world.blobs, world.clock, new_id)

    batches = FileBatches(
        MemoryFileBatchStore(),
        files,
        RecordingFileBatchStarter(),
        OpenAiLines.endpoints,
        world.clock,
        new_id,
    )

    endpoints = MemoryEndpointStore()

    async def no_link(file: StoredFile) -> str | None:
        return None

    return create_api(
        Services(
            identify=identify,
            keys=Keys(key_store or MemoryKeyStore(), world.registry.models, world.clock),
            submitter=replace(world.submitter, audience=Audience(endpoints, world.clock)),
            webhooks=Webhooks(endpoints, world.deliveries, world.clock, new_id, os.urandom),
            direct=world.direct,
            usage=UsageReports(world.usage, world.clock),
            cache=world.cache,
            results=world.results,
            registry=world.registry,
            files=files,
            uploads=uploads,
            batches=batches,
            file_link=no_link,
            default_model=CHAT,
            max_wait_s=max_wait_s,
            abort=world.runner.abort,
            metrics=metrics,
            health=partial(pinged_health, world.registry, world.clock),
            fleet=FleetView(world.fleet, world.registry),
        )
    )


@dataclass(frozen=True)
class Answered:
    """A response, decoded."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> dict[str, Any]:
        """The error of the body, after checking its shape."""
        assert set(self.json) == {"error"}
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert isinstance(error["code"], str)
        return error


async def call(
    api: Api,
    method: str,
    path: str,
    body: object = None,
    headers: dict[str, str] | None = None,
    query: dict[str, str] | None = None,
) -> Answered:
    """One request; a `body` that is no text is sent as JSON."""
    text = body if body is None or isinstance(body, str) else json.dumps(body)
    event = {
        "httpMethod": method,
        "path": path,
        "headers": headers or {},
        "multiValueHeaders": {name: [value] for name, value in (headers or {}).items()},
        "queryStringParameters": query,
        "multiValueQueryStringParameters": {k: [v] for k, v in (query or {}).items()},
        "requestContext": {"stage": "dev", "path": f"/dev{path}", "requestId": "req-1"},
        "body": text,
        "isBase64Encoded": False,
    }
    response = await api.answer(event, None)
    sent = {name.lower(): values[0] for name, values in response["multiValueHeaders"].items()}
    return Answered(response["statusCode"], sent, response["body"])
