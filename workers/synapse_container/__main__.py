"""Entry point of the images: `worker` (ECS), `function` (Lambda), `engine` (its one half)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Generator

import boto3
import uvicorn
from botocore.config import Config

from synapse.adapters.aws.workers import DynamoWorkerRegistry
from synapse_container.function import run_function
from synapse_container.settings import CONTROL_PORT, ContainerSettings, SettingsError
from synapse_container.worker import run_worker
from synapse_worker.agent import Agent
from synapse_worker.agent.control import control_api
from synapse_worker.errors import WorkerError

MODES = ("worker", "function", "engine")
QUICK = Config(connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 2})
"""A heartbeat that comes late is worth nothing."""


def main() -> None:
    """Run in the mode that the command names."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    mode = sys.argv[1] if len(sys.argv) > 1 else "worker"
    if mode not in MODES:
        sys.exit(f"{mode!r} is none of {', '.join(MODES)}")
    try:
        work = run_function() if mode == "function" else _engine(is_alone=mode == "worker")
        sys.exit(asyncio.run(work))
    except (SettingsError, WorkerError) as error:
        sys.exit(str(error))


async def _engine(*, is_alone: bool) -> int:
    settings = ContainerSettings.load(os.environ, is_alone=is_alone)
    registry = None
    if settings.registry_table:
        client = boto3.client("dynamodb", config=QUICK)
        registry = DynamoWorkerRegistry(client, settings.registry_table)
    pool, config = settings.domain_pool(), settings.agent_config()
    return await run_worker(config, pool, registry, serve_control)


async def serve_control(agent: Agent) -> None:
    """The agent's control API, for who is in this container or on this instance."""
    api = control_api(agent)
    config = uvicorn.Config(api, "127.0.0.1", CONTROL_PORT, log_level="warning", lifespan="off")
    await _Server(config).serve()


class _Server(uvicorn.Server):
    """Ends with the worker, whose signals are its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


if __name__ == "__main__":
    main()
