"""The agent's control API and its command line."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from synapse_worker.agent import Agent, AgentState, CacheLevel, ModelStatus, Snapshot
from synapse_worker.agent.arguments import GIB, parse
from synapse_worker.agent.control import MAX_BODY_BYTES, control_api
from synapse_worker.agent.errors import NoRoom, NotNow, TooLarge
from synapse_worker.agent.serving import TOKEN_VARIABLE, ControlConfig
from synapse_worker.errors import UnknownModel, WorkerError

TOKEN = "a-shared-secret"


class FakeAgent:
    """Does what its `plan` says for a model, in its time."""

    def __init__(self) -> None:
        self.plan: dict[str, Exception | asyncio.Event] = {}
        self.calls: list[tuple[str, ...]] = []
        self.state = AgentState.READY
        self.detail = ""

    async def load(self, model: str, version: str | None = None) -> None:
        self.calls.append(("load", model, version or ""))
        await self._follow(model)

    async def unload(self, model: str) -> None:
        self.calls.append(("unload", model))
        await self._follow(model)

    async def drain(self) -> bool:
        self.state, self.detail = AgentState.DEGRADED, "draining"
        await self._follow("drain")
        return True

    async def _follow(self, what: str) -> None:
        plan = self.plan.get(what)
        if isinstance(plan, Exception):
            raise plan
        if plan is not None:
            await plan.wait()

    def snapshot(self) -> Snapshot:
        model = ModelStatus("m", "1", CacheLevel.GPU_RESIDENT, "127.0.0.1:1")
        return Snapshot(
            "w", self.state, "cpu", "127.0.0.1:1", (model,), 2.0, 1.0, detail=self.detail
        )


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
async def client(agent: FakeAgent) -> AsyncIterator[httpx.AsyncClient]:
    async with open_client(agent) as opened:
        yield opened


def open_client(agent: FakeAgent, token: str = "") -> httpx.AsyncClient:
    app = control_api(cast(Agent, agent), token)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://agent")


async def test_a_load_is_answered_when_it_is_done(
    agent: FakeAgent, client: httpx.AsyncClient
) -> None:
    answer = await client.post("/load_model", json={"model": "m", "version": "2"})

    assert (answer.status_code, answer.json()["level"]) == (200, "GPU_RESIDENT")
    assert agent.calls == [("load", "m", "2")]


async def test_a_long_load_is_accepted_and_goes_on(
    agent: FakeAgent, client: httpx.AsyncClient
) -> None:
    agent.plan["m"] = done = asyncio.Event()

    assert (await client.post("/load_model", json={"model": "m"})).status_code == 202

    waiting = asyncio.create_task(client.post("/load_model?wait=10", json={"model": "m"}))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    done.set()
    assert (await waiting).status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UnknownModel("There is no such model"), 404, "model_not_found"),
        (NoRoom("It does not fit"), 507, "no_room"),
        (TooLarge("It never fits"), 507, "too_large"),
        (NotNow("The worker is being drained"), 503, "not_now"),
        (WorkerError("Triton could not load it"), 502, "load_failed"),
        (KeyError("a secret"), 500, None),
    ],
)
@pytest.mark.parametrize("path", ["/load_model", "/unload_model"])
async def test_what_fails_at_once_is_told_in_openais_shape(
    agent: FakeAgent,
    client: httpx.AsyncClient,
    path: str,
    error: Exception,
    status: int,
    code: str | None,
) -> None:
    agent.plan["m"] = error

    answer = await client.post(path, json={"model": "m"})

    told = answer.json()["error"]
    assert (answer.status_code, told["code"]) == (status, code)
    assert set(told) == {"message", "type", "param", "code"}
    assert told["type"] == ("invalid_request_error" if status < 500 else "server_error")
    assert "secret" not in answer.text
    assert ("retry-after" in answer.headers) is (status == 503)


@pytest.mark.parametrize(
    ("path", "content", "param"),
    [
        ("/load_model", "", "model"),
        ("/load_model", "{", None),
        ("/load_model", "[]", None),
        ("/load_model", "[" * 50_000, None),
        ("/load_model", b"\xff\xfe{", None),
        ("/load_model", '{"model": 7}', "model"),
        ("/load_model", '{"model": "../../etc"}', "model"),
        ("/load_model", '{"model": "m", "version": 1}', "version"),
        ("/load_model", '{"model": "m", "verzion": "1"}', "verzion"),
        ("/load_model?wait=soon", '{"model": "m"}', "wait"),
        ("/load_model?wait=-1", '{"model": "m"}', "wait"),
        ("/load_model?wait=nan", '{"model": "m"}', "wait"),
        ("/unload_model", "{}", "model"),
        ("/unload_model", '{"model": "m", "version": "1"}', "version"),
        ("/drain", '{"hard": true}', "hard"),
        ("/heartbeat", "7", None),
        ("/heartbeat", " " * (MAX_BODY_BYTES + 1), None),
    ],
)
async def test_what_cannot_be_meant_is_refused_and_changes_nothing(
    agent: FakeAgent,
    client: httpx.AsyncClient,
    path: str,
    content: str | bytes,
    param: str | None,
) -> None:
    answer = await client.post(path, content=content)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert agent.calls == []
    assert agent.state is AgentState.READY


async def test_a_heartbeat_tells_all_and_a_body_changes_nothing(
    agent: FakeAgent, client: httpx.AsyncClient
) -> None:
    answer = await client.post("/heartbeat", json={"state": "IDLE", "id": "x"})

    assert answer.status_code == 200
    assert answer.json() == json.loads(json.dumps(agent.snapshot().as_dict()))
    assert (await client.post("/heartbeat")).json()["state"] == "READY"


async def test_a_drain_makes_the_worker_unwell(agent: FakeAgent, client: httpx.AsyncClient) -> None:
    assert (await client.get("/health")).status_code == 200
    agent.plan["drain"] = asyncio.Event()

    answer = await client.post("/drain")

    assert (answer.status_code, answer.json()["state"]) == (202, "DEGRADED")
    health = await client.get("/health")
    assert (health.status_code, health.json()["detail"]) == (503, "draining")


async def test_other_paths_and_methods_are_refused_in_the_same_shape(
    client: httpx.AsyncClient,
) -> None:
    assert (await client.get("/nowhere")).json()["error"]["message"] == "Not Found"
    wrong = await client.get("/load_model")
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (405, "invalid_request_error")


@pytest.mark.parametrize("given", ["", TOKEN, f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer é"])
async def test_without_the_token_only_the_health_is_told(agent: FakeAgent, given: str) -> None:
    async with open_client(agent, TOKEN) as client:
        for path in ("/load_model", "/unload_model", "/heartbeat", "/drain"):
            headers = {"Authorization": given.encode()} if given else {}
            answer = await client.post(path, json={"model": "m"}, headers=cast(Any, headers))
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_token")
        assert (await client.get("/health")).status_code == 200
        good = {"Authorization": f"Bearer {TOKEN}"}
        assert (await client.post("/heartbeat", headers=good)).status_code == 200
    assert agent.calls == []


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "agent.internal"])
def test_others_than_this_machine_are_not_let_in_without_a_token(host: str) -> None:
    with pytest.raises(WorkerError, match=f"not opened on {host} without a token"):
        ControlConfig(host)

    assert ControlConfig(host, token=TOKEN).host == host
    for loopback in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert ControlConfig(loopback).token == ""


def test_the_command_line_adds_to_the_file_and_wins(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(
        "models = ['a', 'b']\n"
        "model-repository = ['/one', '/two']\n"
        "test-hooks = true\n"
        "container = false\n"
        "cache_source = 's3://bucket/models'\n"
        "disk-budget-gib = 100\n"
        "memory-budget-gib = 0.5\n"
        "pinned = ['a']\n"
        "control-port = 1\n"
    )

    agent, control = parse(["--config", str(file), "--control-port=2"], {TOKEN_VARIABLE: TOKEN})

    assert agent.worker.models == ("a", "b")
    assert agent.worker.model_repositories == (Path("/one"), Path("/two"))
    assert agent.worker.venv is not None
    assert agent.cache is not None
    assert agent.cache.source == "s3://bucket/models"
    assert agent.cache.disk_budget_bytes == 100 * GIB
    assert agent.memory_budget_bytes == GIB // 2
    assert agent.is_pinned("a")
    assert not agent.is_pinned("b")
    assert (control.port, control.host, control.token) == (2, "127.0.0.1", TOKEN)


def test_nothing_need_be_said(tmp_path: Path) -> None:
    agent, control = parse([], {})

    assert agent.worker.models == ()
    assert agent.cache is None
    assert agent.memory_budget_bytes is None
    assert control.host == "127.0.0.1"
    assert agent.id != parse([], {})[0].id


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modles = ['a']", "there is no setting 'modles'"),
        ("config = 'other.toml'", "there is no setting 'config'"),
        ("models = [", "cannot be read"),
        ("models = ['../a']", "is not a model name"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(text)

    with pytest.raises(WorkerError, match=said):
        parse(["--config", str(file)], {})
    with pytest.raises(WorkerError, match="cannot be read"):
        parse(["--config", str(tmp_path / "nowhere")], {})
