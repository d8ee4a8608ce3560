"""Wiring of the one-machine target: the one place where its adapters meet the use cases."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from types import TracebackType
from typing import Self

from synapse.adapters.catalogue import CatalogueError, load_catalogue
from synapse.adapters.local.failures import StorageError
from synapse.adapters.local.queue import LocalJobQueue
from synapse.adapters.local.slots import SlotLedger
from synapse.adapters.telemetry.prometheus import PrometheusTelemetry
from synapse.api.app import create_api
from synapse.api.resolver import Api
from synapse.domain.model import ModelSpec
from synapse.domain.sweep import SweepPolicy
from synapse_server.access_parts import AccessParts
from synapse_server.config import ServerConfig, StartError
from synapse_server.dispatch_loop import DispatchLoop
from synapse_server.fleet_parts import FleetParts
from synapse_server.gauges import Gauges
from synapse_server.housekeeping import every
from synapse_server.records import Records
from synapse_server.use_cases import UseCases
from synapse_server.webhook_parts import WebhookParts

SAVE_EVERY_S = 60.0
PURGE_EVERY_S = 3600.0


class Node:
    """A whole Synapse in one process: `async with Node(config) as node:` serves jobs."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._stack = contextlib.AsyncExitStack()
        self.specs = _specs(config)
        self.api: Api
        self.access: AccessParts

    async def __aenter__(self) -> Self:
        """Open the records, start the worker, take up what was left, and dispatch.

        Raises:
            StartError: something cannot be opened or started; nothing is left running.
        """
        async with contextlib.AsyncExitStack() as stack:
            try:
                await self._open(stack)
            except StorageError as error:
                raise StartError(str(error)) from error
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drain, put back what still runs, stop the worker, close the records."""
        await self._stack.aclose()

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        config, clock = self._config, time.time
        pools = [local.pool for local in config.fleet.pools]
        records = await Records.open(config, self.specs, pools, stack)
        queue, slots = LocalJobQueue(config.max_queued), SlotLedger(clock)
        telemetry = PrometheusTelemetry()
        parts = FleetParts(config, self.specs, records, queue, slots, telemetry)
        await parts.open(stack)
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
        )
        self.access = AccessParts(records, config)
        stack.push_async_callback(self.access.close)
        services = uses.services(self.specs, self.access, gauges.text)
        stack.push_async_callback(services.retries.aclose)
        self.api = create_api(replace(services, cors_origins=config.cors_origins))
        loop = DispatchLoop(queue, uses.dispatcher, parts.fleet.windows, slots, uses.batcher, clock)
        stack.push_async_callback(records.release)
        stack.push_async_callback(uses.starter.close, config.drain_s)
        chores = {
            **parts.chores(),
            "refill": uses.refill(),
            "dispatch": loop.run(self.specs),
            "batches": uses.batches.driver.run(),
            "webhooks": hooks.loop.run(),
            "sweep": every(config.sweep_every_s, "sweep", uses.sweeper.sweep),
            "save": every(SAVE_EVERY_S, "save", records.save),
            "purge": every(PURGE_EVERY_S, "purge", uses.purge),
        }
        for name, work in chores.items():
            stack.push_async_callback(_cancel, asyncio.create_task(work, name=name))


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _specs(config: ServerConfig) -> tuple[ModelSpec, ...]:
    try:
        catalogue = {spec.name: spec for spec in load_catalogue(config.models_dir)}
        return tuple(catalogue[name] for name in config.models)
    except CatalogueError as error:
        raise StartError(str(error)) from error
    except KeyError as error:
        known = ", ".join(sorted(catalogue))
        raise StartError(f"model {error} is not in the catalogue; choose from: {known}") from error
