"""Ray Serve: `@serve.batch` for embeddings, an async deployment over the LLM engine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

# What it and its proxy write goes into the folder that is this process' own, not into /tmp. Read
# when Serve is imported, here and in the processes that it starts.
os.environ["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"] = str(Path.cwd() / "haproxy.cfg")
os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"] = str(Path.cwd() / "admin.sock")
os.environ["RAY_SERVE_HAPROXY_SERVER_STATE_BASE"] = str(Path.cwd())
os.environ["RAY_SERVE_HAPROXY_SERVER_STATE_FILE"] = str(Path.cwd() / "server-state")

import ray
from engines import BATCH_WAIT_S, MAX_BATCH, load, load_one, processes, workload
from ray import serve
from starlette.requests import Request

MAX_ONGOING = 2000
"""More than there are clients: waiting is done where the work is, as with the other peers."""


@serve.deployment(max_ongoing_requests=MAX_ONGOING, ray_actor_options={"num_cpus": 1})
class Batched:
    """Ray Serve joins what waits into one call."""

    def __init__(self) -> None:
        self.engine = load(processes())

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_WAIT_S)
    async def run(self, texts: list[str]) -> list[Any]:
        """All of a batch."""
        return await asyncio.to_thread(self.engine, texts)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One request."""
        body = await request.json()
        return {"output": await self.run(body["text"])}


@serve.deployment(max_ongoing_requests=MAX_ONGOING, ray_actor_options={"num_cpus": 1})
class Concurrent:
    """One request a call, many calls at once: the engine batches by itself."""

    def __init__(self) -> None:
        self.run = load_one()

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One request."""
        return {"output": await self.run((await request.json())["text"])}


def main() -> None:
    """Serve on the port given until a signal."""
    options: dict[str, Any] = {"_node_ip_address": "127.0.0.1", "_temp_dir": str(Path.cwd())}
    ray.init(num_cpus=2, include_dashboard=False, **options)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    deployment: Any = Batched if workload() == "embed" else Concurrent
    replicas = deployment.options(num_replicas=processes())
    serve.run(replicas.bind(), route_prefix="/run")
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    ray.shutdown()


if __name__ == "__main__":
    main()
