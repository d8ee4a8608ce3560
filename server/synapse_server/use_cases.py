"""The use cases of one machine over its records and its engines."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from synapse.adapters.local.batch_starter import InProcessBatchStarter
from synapse.adapters.local.idle_meter import LocalIdleMeter
from synapse.adapters.local.queue import LocalJobQueue, Returns
from synapse.adapters.local.slots import SlotLedger
from synapse.adapters.telemetry.prometheus import PrometheusTelemetry
from synapse.api.openai.lines import OpenAiLines
from synapse.api.services import Services
from synapse.application.accounting import Accounting
from synapse.application.batcher import Batcher
from synapse.application.direct import DirectLane
from synapse.application.dispatch import Dispatcher
from synapse.application.fleet_view import FleetView
from synapse.application.give_back import GiveBack
from synapse.application.line_tools import LineTools
from synapse.application.metered_jobs import MeteredJobs
from synapse.application.metering import Metering
from synapse.application.response_cache import ResponseCache
from synapse.application.results import Results
from synapse.application.revocations import Revocations
from synapse.application.run_batch import BatchRunner
from synapse.application.seats import Seats
from synapse.application.submit import Submitter
from synapse.application.sweep import Sweeper
from synapse.application.usage_reports import UsageReports
from synapse.domain.job import JobId
from synapse.domain.model import ModelSpec, Task
from synapse.domain.retry import RetryPolicy
from synapse.ids import new_id
from synapse_server.access_parts import AccessParts
from synapse_server.batch_parts import BatchParts
from synapse_server.fleet_parts import FleetParts
from synapse_server.records import Records
from synapse_server.refill import refill
from synapse_server.webhook_parts import WebhookParts

MAX_WAIT_S = 300.0
"""The longest a request is held by `?wait=`."""

REFILL_PAGE = 500
RETRY = RetryPolicy(max_attempts=4, base_s=0.2, max_s=3.0)


class UseCases:
    """Everything that is done with jobs and requests; nothing runs by itself."""

    def __init__(
        self,
        records: Records,
        queue: LocalJobQueue,
        slots: SlotLedger,
        parts: FleetParts,
        telemetry: PrometheusTelemetry,
        hooks: WebhookParts,
    ) -> None:
        """Wire the use cases; nothing is awaited or started."""
        clock, registry = time.time, records.registry
        self.metering = Metering(records.meter, parts.fleet.routing.views, clock)
        self._jobs = jobs = MeteredJobs(records.jobs, self.metering)
        self._records, self._queue, self._telemetry = records, queue, telemetry
        self._parts = parts
        self._hooks = hooks
        self._accounting = Accounting(
            parts.fleet.roster, LocalIdleMeter(clock), records.usage, clock
        )
        self._revocations = Revocations(records.keys, clock)
        self._runner = self._batch_runner()
        self.batcher = Batcher(
            self._runner,
            GiveBack(jobs, Returns(queue), telemetry, clock),
            RETRY,
            asyncio.sleep,
            random.random,
            moved=lambda batch, pool: self.starter.moved(batch.id, pool.name),
        )
        self.starter = InProcessBatchStarter(self.batcher.run, slots)
        self.dispatcher = Dispatcher(
            store=jobs,
            registry=registry,
            at_once=parts.fleet.routing.at_once,
            starter=self.starter,
            telemetry=telemetry,
            clock=clock,
            new_id=new_id,
        )
        self.sweeper = Sweeper(
            jobs, queue, telemetry, clock, cold_starts=parts.cold_starts, forget=queue.discard
        )
        self._direct = self._direct_lane(slots)
        self.batches = BatchParts(
            records.database, records.files.files, self._line_tools(), self._revocations
        )

    def services(
        self,
        specs: Sequence[ModelSpec],
        access: AccessParts,
        metrics: Callable[[], Awaitable[str]],
    ) -> Services:
        """What the routes need."""
        records, parts, clock = self._records, self._parts, time.time
        return Services(
            identify=access.identify,
            usage=UsageReports(records.usage, clock),
            keys=access.keys,
            login=access.login,
            submitter=Submitter(
                self._jobs,
                self._queue,
                records.blobs,
                records.registry,
                self._telemetry,
                clock,
                new_id,
                cold_starts=parts.cold_starts,
                audience=self._hooks.audience,
                metering=self.metering,
            ),
            webhooks=self._hooks.webhooks,
            direct=self._direct,
            cache=ResponseCache(records.kept, records.registry, clock),
            results=Results(
                self._jobs,
                records.blobs,
                self._telemetry,
                clock,
                parts.cold_starts,
                forget=self._queue.discard,
            ),
            registry=records.registry,
            files=records.files.files,
            uploads=records.files.uploads,
            batches=self.batches.batches,
            file_link=records.files.link,
            default_model=next((s.name for s in specs if s.task is Task.GENERATE), specs[0].name),
            max_wait_s=MAX_WAIT_S,
            abort=self._abort,
            metrics=metrics,
            health=parts.health.look,
            fleet=FleetView(parts.fleet, records.registry, parts.local, parts.autoscaler.decisions),
        )

    async def refill(self) -> None:
        """Queue what the last process left, as room is made for it."""
        await refill(self._records.jobs.queued(REFILL_PAGE), self._queue)

    async def purge(self) -> None:
        """Forget what has had its time."""
        await self._records.purge(await self.batches.open_since())
        await self.batches.purge()
        await self._hooks.purge()

    def _batch_runner(self) -> BatchRunner:
        records, fleet = self._records, self._parts.fleet
        return BatchRunner(
            store=self._jobs,
            blobs=records.blobs,
            registry=records.registry,
            engine=fleet.engine,
            telemetry=self._telemetry,
            clock=time.time,
            items_begin=lambda batch, items: self.starter.begin(batch.id, items),
            items_left=lambda batch, items: self.starter.release(batch.id, items),
            place=fleet.placement.place,
            cold_starts=self._parts.cold_starts,
            accounting=self._accounting,
            revocations=self._revocations,
        )

    def _direct_lane(self, slots: SlotLedger) -> DirectLane:
        registry, fleet = self._records.registry, self._parts.fleet
        return DirectLane(
            registry=registry,
            fleet=fleet,
            seats=Seats(registry, slots, fleet.windows, time.time),
            telemetry=self._telemetry,
            clock=time.time,
            cold_starts=self._parts.cold_starts,
            accounting=self._accounting,
            metering=self.metering,
        )

    def _line_tools(self) -> LineTools:
        records = self._records
        return LineTools(
            store=self._jobs,
            queue=self._queue,
            blobs=records.blobs,
            file_blobs=records.files.blobs,
            registry=records.registry,
            codec=OpenAiLines(records.registry),
            telemetry=self._telemetry,
            clock=time.time,
            new_id=new_id,
            abort=self._abort,
            metering=self.metering,
        )

    def _abort(self, job_id: JobId) -> None:
        self._queue.discard(job_id)
        self._runner.abort(job_id)
