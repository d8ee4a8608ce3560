"""Entry point of the images: `worker` (ECS), `function` (Lambda), `engine` (its one half)."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import boto3
from botocore.config import Config

from synapse.adapters.aws.workers import DynamoWorkerRegistry
from synapse_container.function import run_function
from synapse_container.settings import ContainerSettings, SettingsError
from synapse_container.worker import run_worker
from synapse_worker.agent.serving import TOKEN_VARIABLE, ControlConfig
from synapse_worker.errors import WorkerError

MODES = ("worker", "function", "engine")
QUICK = Config(connect_timeout=2, read_timeout=3, retries={"total_max_attempts": 2})
"""A heartbeat that comes late is worth nothing."""


def main() -> None:
    """Run in the mode that the command names."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    mode = sys.argv[1] if len(sys.argv) > 1 else "worker"
    if mode not in MODES:
        sys.exit(f"{mode!r} is none of {', '.join(MODES)}")
    try:
        work = run_function() if mode == "function" else _worker(is_alone=mode == "worker")
        given_up = asyncio.run(work)
    except (SettingsError, WorkerError) as error:
        given_up = str(error)
    sys.exit(given_up or 0)


async def _worker(*, is_alone: bool) -> str:
    settings = ContainerSettings.load(os.environ, is_alone=is_alone)
    registry = None
    if settings.registry_table:
        client = boto3.client("dynamodb", config=QUICK)
        registry = DynamoWorkerRegistry(client, settings.registry_table)
    control = ControlConfig(port=settings.control_port, token=os.environ.get(TOKEN_VARIABLE, ""))
    return await run_worker(settings.agent_config(), control, settings.pool_of(), registry)


if __name__ == "__main__":
    main()
