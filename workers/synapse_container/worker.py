"""The worker: an agent, its heartbeats and its control API, until a signal or its engine's end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from synapse.domain.pool import Pool
from synapse.ports import WorkerRegistry
from synapse_container.heart import Heart
from synapse_worker.agent import Agent, AgentConfig
from synapse_worker.errors import WorkerError

logger = logging.getLogger(__name__)

Serve = Callable[[Agent], Coroutine[Any, Any, None]]


async def run_worker(
    config: AgentConfig, pool: Pool, registry: WorkerRegistry | None, serve: Serve
) -> int:
    """Run the worker; the exit status. `registry` is None where nobody has to find it.

    SIGTERM has it drain: it says so, ends what it has, and goes. It goes by itself, with status 1,
    when its engine has died too often: then it is for the pool to start another one, or to see
    that none comes up, and for nobody to pay for this one.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    agent = Agent(config)
    async with AsyncExitStack() as stack:
        if registry is not None:
            heart = Heart(registry, pool, agent)
            stack.push_async_callback(heart.stop)
            _beside(stack, heart.run())
        _beside(stack, serve(agent))
        return await _lived(agent, stopped)


async def _lived(agent: Agent, stopped: asyncio.Event) -> int:
    starting = asyncio.create_task(agent.start())
    stopping = asyncio.create_task(stopped.wait())
    failing = asyncio.create_task(agent.wait_failed())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            logger.info("worker is up")
            await asyncio.wait({stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
            if not failing.done():
                logger.info("worker is drained")
                await agent.drain()
            else:
                logger.error("worker has failed: %s", agent.snapshot().detail)
    except WorkerError as error:
        logger.error("worker did not start: %s", error)
        return 1
    finally:
        for task in (starting, stopping, failing):
            task.cancel()
        await asyncio.gather(starting, stopping, failing, return_exceptions=True)
        await agent.stop()
    return 0 if stopped.is_set() else 1


def _beside(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Run it for as long as the stack stands."""
    task = asyncio.create_task(work)

    async def cancel() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(cancel)
