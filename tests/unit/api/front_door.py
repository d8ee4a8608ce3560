"""A deployment with two tenants, whose callers come with real keys, and what one of them owns."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from synapse.api.gate import by_credential
from synapse.api.resolver import Api
from synapse.application.authentication import Authenticator
from synapse.application.keys import Keys, KeyWish
from synapse.domain.access import ALL_SCOPES, ANYONE, Limits, Scope, Tenant
from synapse.domain.rights import Rights
from tests.fake_keys import MemoryKeyStore
from tests.unit.api.calls import Answered, api_of, call
from tests.unit.api.forms import FORM_TYPE, a_file, form, purpose
from tests.unit.application.world import World

OWNER, STRANGER = "acme", "umbrella"
MARK = "nobody-else-may-read-this"
"""In the texts of all that the owner has."""

EVERYTHING = Rights(ALL_SCOPES)
PARAMETER = re.compile(r"<(\w+)>")
LINE = {
    "custom_id": MARK,
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "echo", "messages": [{"role": "user", "content": MARK}]},
}


@dataclass
class FrontDoor:
    """The API as the one machine has it, its keys in memory."""

    world: World = field(default_factory=World)
    store: MemoryKeyStore = field(default_factory=MemoryKeyStore)

    def __post_init__(self) -> None:
        clock = self.world.clock
        authenticator = Authenticator(self.store, clock)
        self.keys = Keys(self.store, self.world.registry.models, clock)
        self.api: Api = api_of(self.world, by_credential(authenticator), self.store)

    async def key(self, tenant: str = OWNER, rights: Rights = EVERYTHING, **wish: Any) -> str:
        """The text of a new key."""
        made = await self.keys.create(ANYONE, KeyWish("a test", rights, tenant, **wish))
        return made.text

    async def ask(
        self,
        method: str,
        path: str,
        credential: str | None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        """A request with that in its Authorization header."""
        sent = dict(headers or {})
        if credential is not None:
            sent["Authorization"] = credential
        return await call(self.api, method, path, body, sent)


@dataclass(frozen=True)
class Owned:
    """How something is made that has an id, and an id of the same form that nothing has."""

    make: Callable[[FrontDoor, str], Awaitable[str]]
    unknown: Callable[[str], str] = lambda known: known[:-6] + "zzzzzz"


async def _a_job(door: FrontDoor, key: str) -> str:
    return await _made(door, key, "/async-infer", {"model": "echo", "prompt": MARK}, "jobId")


async def _a_file(door: FrontDoor, key: str) -> str:
    content = json.dumps(LINE).encode() + b"\n"
    body = form(purpose(), a_file(content, filename=f"{MARK}.jsonl")).decode()
    return await _made(door, key, "/v1/files", body, "id", {"Content-Type": FORM_TYPE})


async def _an_upload(door: FrontDoor, key: str) -> str:
    body = {"bytes": 10, "filename": MARK, "mime_type": "text/jsonl", "purpose": "batch"}
    return await _made(door, key, "/v1/uploads", body, "id")


async def _a_batch(door: FrontDoor, key: str) -> str:
    body = {
        "input_file_id": await _a_file(door, key),
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"mark": MARK},
    }
    return await _made(door, key, "/v1/batches", body, "id")


async def _a_key(door: FrontDoor, key: str) -> str:
    return await _made(door, key, "/api/admin/keys", {"name": MARK}, "id")


async def _a_webhook(door: FrontDoor, key: str) -> str:
    body = {"url": f"https://example.com/{MARK}", "events": ["job.completed"]}
    return await _made(door, key, "/api/webhooks", body, "id")


async def _a_tenant(door: FrontDoor, key: str) -> str:
    await door.store.describe(Tenant(OWNER, Limits(monthly_usd=98765.0)))
    return OWNER


async def _a_model(door: FrontDoor, key: str) -> str:
    return "smollm2-135m-instruct"  # which the stranger's key is not for


async def _made(
    door: FrontDoor,
    key: str,
    path: str,
    body: object,
    id_at: str,
    headers: Mapping[str, str] | None = None,
) -> str:
    answered = await door.ask("POST", path, f"Bearer {key}", body, headers)
    assert answered.status < 300, answered.text
    made: str = answered.json[id_at]
    return made


OWNED: dict[str, Owned] = {
    "job_id": Owned(_a_job),
    "task_id": Owned(_a_job),
    "file_id": Owned(_a_file),
    "upload_id": Owned(_an_upload),
    "batch_id": Owned(_a_batch),
    "key_id": Owned(_a_key),
    "webhook_id": Owned(_a_webhook),
    "name": Owned(_a_tenant, lambda known: "acmo"),
    "model": Owned(_a_model),
}
"""By the name of a path's parameter. A route with a new one needs an entry here."""

BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/uploads/<upload_id>/complete"): {"part_ids": ["part_1"]},
    ("PUT", "/api/admin/tenants/<name>"): {"limits": {"monthly_usd": 1}},
    ("POST", "/v1/uploads/<upload_id>/parts"): form(a_file(name="data")).decode(),
}
"""What a route wants before it looks at the id."""

HEADERS: dict[tuple[str, str], dict[str, str]] = {
    ("POST", "/v1/uploads/<upload_id>/parts"): {"Content-Type": FORM_TYPE},
}

STRANGERS_RIGHTS = Rights(ALL_SCOPES, models=frozenset({"echo"}))
ALL_BUT: dict[Scope, frozenset[Scope]] = {scope: ALL_SCOPES - {scope} for scope in Scope}
