"""A real server with authentication, two tenants and an operator, and what one tenant owns."""

from __future__ import annotations

import json
import secrets
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.one_machine.running import SYNAPSE, Server

OWNER, STRANGER, OUTSIDER = "acme", "umbrella", "initech"
ALL = "inference,batches,usage,admin"
SECRET_KEYS = ("key", "secret", "access_token")
"""Fields of answers that nobody but the caller may ever see."""

MADE = {
    "/async-infer": "job_id",
    "/infer": "job_id",
    "/v1/files": "file_id",
    "/v1/uploads": "upload_id",
    "/v1/uploads/<upload_id>/parts": "part_id",
    "/v1/batches": "batch_id",
    "/api/admin/keys": "key_id",
    "/api/webhooks": "webhook_id",
}
"""What routes make, by the name of its id in paths."""

MAX_KNOWN = 12


@dataclass(frozen=True)
class Caller:
    """Who asks. `tenant` is "" for nobody; `sees_all` is the operator, who may."""

    name: str
    credential: str | None
    tenant: str = ""
    sees_all: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """What says who it is."""
        return {} if self.credential is None else {"Authorization": f"Bearer {self.credential}"}


@dataclass
class Stage:
    """The server, who calls it, and the ids of what they own, by the name of a path's parameter."""

    server: Server
    callers: dict[str, Caller] = field(default_factory=dict)
    ids: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    canaries: dict[str, str] = field(
        default_factory=lambda: {who: f"canary-{secrets.token_hex(8)}" for who in (OWNER, STRANGER)}
    )
    """In the texts of all that a tenant sends, and nowhere else."""

    def foreign(self, caller: Caller) -> list[str]:
        """What that caller must never be told."""
        if caller.sees_all:
            return []
        return [canary for tenant, canary in self.canaries.items() if tenant != caller.tenant]

    def learn(self, answer: Mapping[str, Any]) -> None:
        """Note secrets that were given out."""
        self.secrets += [str(answer[key]) for key in SECRET_KEYS if answer.get(key)]

    def learn_made(self, path: str, tenant: str, answer: Mapping[str, Any]) -> None:
        """Note what was made, so that others ask for it; the ones before it are let go."""
        kind = MADE.get(path)
        made = answer.get("id") or answer.get("jobId")
        if kind is not None and tenant in self.ids and isinstance(made, str):
            known = self.ids[tenant].setdefault(kind, [])
            self.ids[tenant][kind] = [*known, made][-MAX_KNOWN:]


def set_up(folder: Path) -> Stage:
    """Start the server and let the callers be made."""
    stage = Stage(Server(folder / "data", "echo", auth="on"))
    stage.server.start()
    key = stage.server.new_key
    limits = ("--requests-per-minute", "600", "--concurrent-jobs", "50", "--monthly-usd", "5")
    made = [
        Caller("owner", _user(stage, "ada", OWNER), OWNER),
        Caller("owner's key", key("--tenant", OWNER), OWNER),
        Caller("stranger", _user(stage, "eve", STRANGER), STRANGER),
        Caller("stranger with limits", key("--tenant", STRANGER, *limits), STRANGER),
        Caller("stranger without scopes", key("--tenant", STRANGER, "--scopes", "usage"), STRANGER),
        Caller("outsider", _user(stage, "sam", OUTSIDER), OUTSIDER),
        Caller("operator", _user(stage, "root", "default"), "default", sees_all=True),
        Caller("nobody", None),
    ]
    stage.callers = {caller.name: caller for caller in made}
    stage.secrets += [each.credential for each in made if each.credential]
    for name in ("owner", "stranger"):
        caller = stage.callers[name]
        with httpx.Client(base_url=stage.server.url, headers=caller.headers, timeout=30) as client:
            stage.ids[caller.tenant] = _own_things(stage, client, stage.canaries[caller.tenant])
    return stage


def _user(stage: Stage, name: str, tenant: str) -> str:
    """A new user's token."""
    password = secrets.token_urlsafe(18)
    stage.secrets.append(password)
    place = ("--data-dir", str(stage.server.data_dir))
    command = [str(SYNAPSE), "users", "add", name, "--tenant", tenant, "--scopes", ALL, *place]
    subprocess.run(
        command, input=f"{password}\n", capture_output=True, text=True, timeout=60, check=True
    )
    body = {"username": name, "password": password}
    answer = httpx.post(f"{stage.server.url}/api/auth/login", json=body, timeout=30)
    return str(answer.raise_for_status().json()["access_token"])


def _own_things(stage: Stage, client: httpx.Client, mark: str) -> dict[str, list[str]]:
    """Things that bear the mark; some are there twice, since requests may delete them."""

    def made(path: str, **body: Any) -> dict[str, Any]:
        answer: dict[str, Any] = client.post(path, json=body).raise_for_status().json()
        stage.learn(answer)
        return answer

    jobs = [
        made("/async-infer", model="echo", prompt=mark, metadata={"mark": mark}, sla="gold")
        for _ in range(4)
    ]
    for job in jobs:
        _wait(client, job["jobId"])
    files = [_file(client, mark) for _ in range(4)]
    window = {"endpoint": "/v1/completions", "completion_window": "24h"}
    batches = [
        made("/v1/batches", input_file_id=each, metadata={"mark": mark}, **window)
        for each in files[:2]
    ]
    kind = {"mime_type": "text/jsonl", "purpose": "batch", "bytes": 10}
    uploads = [made("/v1/uploads", filename=mark, **kind) for _ in range(3)]
    keys = [made("/api/admin/keys", name=mark, tiers=["bronze"]) for _ in range(3)]
    url = f"https://hooks.example.invalid/{mark}"
    hooks = [made("/api/webhooks", url=url, events=["job.failed"]) for _ in range(3)]
    ids = {
        name: [str(each["id"]) for each in found]
        for name, found in (
            ("batch_id", batches),
            ("upload_id", uploads),
            ("key_id", keys),
            ("webhook_id", hooks),
        )
    }
    job_ids = [str(job["jobId"]) for job in jobs]
    return ids | {"job_id": job_ids, "task_id": job_ids, "file_id": files}


def _wait(client: httpx.Client, job_id: str) -> None:
    deadline = time.monotonic() + 60
    while client.get(f"/results/{job_id}?wait=5").json()["status"] != "COMPLETED":
        assert time.monotonic() < deadline, "the server completes no job"


def _file(client: httpx.Client, mark: str) -> str:
    body = {"model": "echo", "prompt": mark}
    line = {"custom_id": mark, "method": "POST", "url": "/v1/completions", "body": body}
    files = {"file": (f"{mark}.jsonl", json.dumps(line).encode())}
    answer = client.post("/v1/files", data={"purpose": "batch"}, files=files)
    return str(answer.raise_for_status().json()["id"])
