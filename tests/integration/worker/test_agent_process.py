"""`python -m synapse_worker.agent`: a worker with its control API, until it is told to stop."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from synapse_worker.agent import Agent, AgentConfig
from synapse_worker.agent.serving import TOKEN_VARIABLE, ControlConfig, ControlServer, serve
from synapse_worker.backoff import RestartPolicy
from synapse_worker.config import WorkerConfig
from synapse_worker.errors import WorkerError
from tests.integration.worker.agents import ask, echo_repository
from tests.patience import PATIENCE_S
from tests.ports import free_port


@dataclass
class Running:
    """A worker in a process of its own."""

    process: asyncio.subprocess.Process
    client: httpx.AsyncClient

    async def heartbeat(self) -> dict[str, Any]:
        return dict((await self.client.post("/heartbeat")).json())

    async def until(self, state: str) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    told = await self.heartbeat()
                except httpx.TransportError:
                    if self.process.returncode is not None:
                        _, said = await self.process.communicate()
                        raise AssertionError(f"the worker ended: {said.decode()}") from None
                    told = {}
                if told.get("state") == state:
                    return told
                await asyncio.sleep(0.05)


@asynccontextmanager
async def running(config: WorkerConfig, tmp_path: Path, *more: str) -> AsyncIterator[Running]:
    port = free_port()
    settings = tmp_path / "agent.toml"
    settings.write_text(
        f"models = ['echo-a']\nworker-venv = '{config.venv}'\nstate-dir = '{config.state_dir}'\n"
        f"model-repository = ['{echo_repository(tmp_path / 'models')}']\n"
        f"log-file = '{tmp_path / 'triton.log'}'\ncontrol-port = {port}\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "synapse_worker.agent", "--config", str(settings), *more),
        stderr=asyncio.subprocess.PIPE,
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
        try:
            yield Running(process, client)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def test_models_are_switched_over_http_and_a_signal_drains(
    echo_config: WorkerConfig, tmp_path: Path
) -> None:
    async with running(echo_config, tmp_path) as worker:
        endpoint = (await worker.until("READY"))["endpoint"]

        loaded = await worker.client.post("/load_model?wait=20", json={"model": "echo-b"})
        assert (loaded.status_code, loaded.json()["endpoint"]) == (200, endpoint)
        gone = await worker.client.post("/unload_model?wait=20", json={"model": "echo-a"})
        assert (gone.status_code, gone.json()["level"]) == (200, "NVME_CACHED")
        unknown = await worker.client.post("/load_model", json={"model": "echo-x"})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
        assert await ask(endpoint, "echo-b") == b"hello"
        told = await worker.heartbeat()
        triton = told["pid"]
        assert {m["name"]: bool(m["endpoint"]) for m in told["models"]} == {
            "echo-a": False,
            "echo-b": True,
            "echo-c": False,
            "echo-x": False,
        }

        worker.process.send_signal(signal.SIGTERM)
        _, said = await asyncio.wait_for(worker.process.communicate(), PATIENCE_S)

        assert worker.process.returncode == 0
        assert b"draining" in said
        with pytest.raises(ProcessLookupError):
            os.killpg(triton, 0)


async def test_what_cannot_be_started_ends_with_the_reason(
    echo_config: WorkerConfig, tmp_path: Path
) -> None:
    async with running(echo_config, tmp_path, "--models", "nowhere") as worker:
        _, said = await asyncio.wait_for(worker.process.communicate(), PATIENCE_S)

    assert worker.process.returncode == 1
    assert b"There is no model 'nowhere' here. Choose from: echo-a, echo-b, echo-c" in said


async def test_it_is_not_opened_to_others_without_a_token(
    echo_config: WorkerConfig, tmp_path: Path
) -> None:
    async with running(echo_config, tmp_path, "--control-host", "0.0.0.0") as worker:
        _, said = await asyncio.wait_for(worker.process.communicate(), PATIENCE_S)

    assert worker.process.returncode == 1
    assert TOKEN_VARIABLE.encode() in said


async def test_a_worker_in_a_crash_loop_gives_up_with_the_cause(echo_config: WorkerConfig) -> None:
    policy = RestartPolicy(base_delay_s=0.05, max_delay_s=0.1, max_restarts=1)
    agent = Agent(AgentConfig(replace(echo_config, restart=policy)))
    told: list[str] = []

    async def kill_what_comes_up() -> None:
        async for snapshot in agent.beats(0.05):
            if snapshot.has_failed:
                told.append(json.dumps(snapshot.as_dict()))
                return
            if snapshot.state == "READY" and snapshot.pid is not None:
                # It may have ended already, and this is not known yet.
                with suppress(ProcessLookupError):
                    os.kill(snapshot.pid, signal.SIGKILL)

    killing = asyncio.create_task(kill_what_comes_up())
    async with asyncio.timeout(PATIENCE_S):
        given_up = await serve(agent, ControlServer(agent, ControlConfig()))
    await killing

    assert given_up == "Triton was given up: Triton was killed by signal 9"
    last = json.loads(told[0])
    assert (last["state"], last["detail"]) == ("DEGRADED", "Triton was killed by signal 9")


async def test_a_port_in_use_is_told(echo_config: WorkerConfig) -> None:
    agent = Agent(AgentConfig(echo_config))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        control = ControlServer(agent, ControlConfig(port=taken.getsockname()[1]))
        with pytest.raises(WorkerError, match=r"cannot listen on .*: address already in use"):
            await serve(agent, control)
