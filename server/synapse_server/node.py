"""Wiring of the one-machine target: the one place where its adapters meet the use cases."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, Self

from synapse.adapters.local.failures import StorageError
from synapse.adapters.local.queue import LocalJobQueue
from synapse.adapters.local.slots import SlotLedger
from synapse.adapters.telemetry.prometheus import PrometheusTelemetry
from synapse.api.app import create_api
from synapse.api.resolver import Api
from synapse.domain.errors import Unavailable
from synapse.domain.sweep import SweepPolicy
from synapse_server.access_parts import AccessParts
from synapse_server.config import StartError
from synapse_server.dispatch_loop import DispatchLoop
from synapse_server.fleet_parts import FleetParts
from synapse_server.gauges import Gauges
from synapse_server.ground import Ground
from synapse_server.housekeeping import every
from synapse_server.records import Records
from synapse_server.use_cases import UseCases
from synapse_server.webhook_parts import WebhookParts

DISK_EVERY_S = 5.0
SAVE_EVERY_S = 60.0
PURGE_EVERY_S = 3600.0

Chores = Mapping[str, Coroutine[Any, Any, None]]
"""What runs until it is cancelled, by name."""


class Node:
    """A whole Synapse in one process: `async with Node(ground) as node:`; jobs from `begin` on."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._stack = contextlib.AsyncExitStack()
        self._chores: Callable[[], Chores]
        self.api: Api
        self.access: AccessParts

    async def __aenter__(self) -> Self:
        """Open the records, and make all that works with them.

        Raises:
            StartError: something cannot be opened; nothing is left running.
        """
        async with contextlib.AsyncExitStack() as stack:
            try:
                await self._open(stack)
            except StorageError as error:
                raise StartError(str(error)) from error
            except Unavailable as error:
                raise StartError(error.message) from error
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drain, put back what still runs, close the records."""
        await self._stack.aclose()

    async def begin(self) -> None:
        """Return once the workers are up and take up what was left; it goes on from there.

        Raises:
            StartError: a worker could not be started.
        """
        await self._ground.workers_up()
        for name, work in self._chores().items():
            self._stack.push_async_callback(_cancel, asyncio.create_task(work, name=name))

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        ground, clock = self._ground, time.time
        config, specs = ground.config, ground.specs
        pools = [local.pool for local in config.fleet.pools]
        records = await Records.open(config, specs, pools, ground.database, stack)
        queue, slots = LocalJobQueue(config.max_queued), SlotLedger(clock)
        telemetry = PrometheusTelemetry()
        parts = FleetParts(ground, records, queue, slots, telemetry)
        stack.push_async_callback(parts.close)
        hooks = WebhookParts(records, telemetry, config.webhook_allow)
        uses = UseCases(records, queue, slots, parts, telemetry, hooks)
        await records.jobs.recover(clock(), SweepPolicy())
        await uses.metering.recover(records.meter.left_open(), records.jobs.get)
        gauges = Gauges(
            records.registry,
            pools,
            parts.workers,
            parts.fleet.vitals,
            queue,
            slots,
            telemetry,
            clock,
            parts.health.look,
        )
        self.access = AccessParts(records, config)
        stack.push_async_callback(self.access.close)
        services = uses.services(specs, self.access, gauges.text)
        stack.push_async_callback(services.retries.aclose)
        self.api = create_api(replace(services, cors_origins=config.cors_origins))
        loop = DispatchLoop(queue, uses.dispatcher, parts.fleet.windows, slots, uses.starter, clock)
        stack.push_async_callback(records.release)
        stack.push_async_callback(uses.starter.close, config.drain_s)
        self._chores = lambda: {
            **parts.chores(),
            "refill": uses.refill(),
            "dispatch": loop.run(specs),
            "batches": uses.batches.driver.run(),
            "webhooks": hooks.loop.run(),
            "sweep": every(config.sweep_every_s, "sweep", uses.sweeper.sweep),
            "disk": every(DISK_EVERY_S, "a write to the disk", records.try_again),
            "save": every(SAVE_EVERY_S, "save", records.save),
            "purge": every(PURGE_EVERY_S, "purge", uses.purge),
        }


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
