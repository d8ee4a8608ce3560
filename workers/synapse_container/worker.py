"""The worker: an agent, its control API, and the heartbeats by which it is found."""

from __future__ import annotations

import asyncio
import contextlib

from synapse.domain.pool import Pool
from synapse.ports import WorkerRegistry
from synapse_container.heart import Heart
from synapse_worker.agent import Agent, AgentConfig
from synapse_worker.agent.serving import ControlConfig, ControlServer, serve
from synapse_worker.errors import WorkerError


async def run_worker(
    config: AgentConfig, control: ControlConfig, pool: Pool, registry: WorkerRegistry | None
) -> str:
    """Run the worker until a signal, which drains it; why it gave up, or nothing.

    It gives up when its engine has died too often: then it is for the pool to start another one,
    or to see that none comes up, and for nobody to pay for this one. `registry` is None where
    nobody has to find it.

    Raises:
        WorkerError: it could not be started.
    """
    agent = Agent(config)
    server = ControlServer(agent, control)
    if registry is None:
        return await serve(agent, server)
    heart = Heart(registry, pool, agent)
    beating = asyncio.create_task(heart.run())
    why = ""
    try:
        why = await serve(agent, server)
        return why
    except WorkerError as error:
        why = error.cause
        raise
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
        await heart.stop(why)
