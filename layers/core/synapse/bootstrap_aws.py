"""Wiring of the AWS target: the one place where its adapters meet the use cases.

Nothing happens at import. Each use case is made when a function first needs it, over adapters
that are made likewise (`synapse.aws_parts`).
"""

from __future__ import annotations

import os
import time
from functools import cache, cached_property, partial

from synapse.adapters.telemetry.exposition import exposition
from synapse.api.app import create_api
from synapse.api.gate import by_credential, from_authorizer
from synapse.api.openai.lines import OpenAiLines
from synapse.api.resolver import Api
from synapse.api.retries import NoRetries
from synapse.api.services import Services
from synapse.application.advance import Advancer
from synapse.application.authentication import Authenticator
from synapse.application.direct import DirectLane
from synapse.application.dispatch import Dispatcher
from synapse.application.file_batches import FileBatches
from synapse.application.files import Files
from synapse.application.fleet_view import FleetView
from synapse.application.gathering import Gathering
from synapse.application.give_back import GiveBack
from synapse.application.health import pinged_health
from synapse.application.keys import Keys
from synapse.application.line_tools import LineTools
from synapse.application.login import Login
from synapse.application.response_cache import ResponseCache
from synapse.application.results import Results
from synapse.application.seats import Seats
from synapse.application.submit import Submitter
from synapse.application.sweep import Sweeper
from synapse.application.under_way import load_of
from synapse.application.uploads import Uploads
from synapse.application.usage_reports import UsageReports
from synapse.aws_fleet import FleetTarget
from synapse.aws_loop import run as run
from synapse.aws_webhooks import WebhookTarget
from synapse.domain.file_batch import Pace
from synapse.domain.job import JobId
from synapse.ids import new_id
from synapse.settings import Settings

MAX_WAIT_S = 25.0
"""API Gateway gives up after 29 s."""

MAX_DIRECT_S = 880.0
"""The chat function has 900 s, as long as API Gateway streams at most."""

BATCH_PACE = Pace(min_s=2.0, max_s=60.0)
"""A day at the slowest is 1,440 turns of the state machine, of nine events each: it has 25,000."""


@cache
def target() -> Target:
    """The target of this environment."""
    return Target(Settings.load(os.environ))


class Target(FleetTarget):
    """The use cases over AWS adapters."""

    @cached_property
    def api(self) -> Api:
        """The HTTP surface."""
        parts = self.parts
        hooks = WebhookTarget(parts)
        submitter = Submitter(
            parts.jobs,
            parts.queue,
            parts.blobs,
            parts.registry,
            self.telemetry,
            time.time,
            new_id,
            cold_starts=self.cold_starts,
            audience=hooks.audience,
            metering=self.metering,
        )
        return create_api(
            Services(
                identify=from_authorizer,
                # The authorizer is not asked where everybody may call.
                recognise=by_credential(Authenticator(parts.keys, time.time)),
                usage=UsageReports(parts.usage, time.time),
                keys=Keys(parts.keys, parts.registry.models, time.time),
                login=Login(parts.accounts, time.monotonic) if parts.accounts else None,
                submitter=submitter,
                webhooks=hooks.webhooks,
                direct=self._direct,
                cache=ResponseCache(parts.blobs, parts.registry, time.time),
                results=Results(
                    parts.jobs,
                    parts.blobs,
                    self.telemetry,
                    time.time,
                    self.cold_starts,
                    parts.links.result_link,
                ),
                registry=parts.registry,
                files=self._files,
                uploads=Uploads(parts.uploads, self._files, parts.blobs, time.time, new_id),
                batches=self.file_batches,
                file_link=parts.links.link,
                default_model=self.settings.default_model,
                cors_origins=self.settings.cors_origins,
                max_wait_s=MAX_WAIT_S,
                abort=_no_abort,
                metrics=self._metrics,
                health=partial(pinged_health, parts.registry, time.time),
                max_direct_s=MAX_DIRECT_S,
                retries=NoRetries(),
                fleet=FleetView(self.fleet, parts.registry),
            )
        )

    @cached_property
    def dispatcher(self) -> Dispatcher:
        """Plans and starts batches."""
        parts = self.parts
        return Dispatcher(
            store=parts.jobs,
            registry=parts.registry,
            at_once=self.fleet.routing.at_once,
            starter=parts.batch_starter,
            telemetry=self.telemetry,
            clock=time.time,
            new_id=new_id,
            gathering=Gathering(parts.queue.gather, self.places),
        )

    @cached_property
    def give_back(self) -> GiveBack:
        """Gives back what no pool could run."""
        return GiveBack(self.parts.jobs, self.parts.queue, self.telemetry, time.time)

    @cached_property
    def sweeper(self) -> Sweeper:
        """Looks after stale jobs."""
        return Sweeper(self.parts.jobs, self.parts.queue, self.telemetry, time.time)

    @cached_property
    def file_batches(self) -> FileBatches:
        """Takes in file batches."""
        parts = self.parts
        return FileBatches(
            parts.file_batches,
            self._files,
            parts.file_batch_starter,
            OpenAiLines.endpoints,
            time.time,
            new_id,
        )

    @cached_property
    def advancer(self) -> Advancer:
        """Drives file batches."""
        parts = self.parts
        tools = LineTools(
            store=parts.jobs,
            queue=parts.queue,
            blobs=parts.blobs,
            file_blobs=parts.blobs,
            registry=parts.registry,
            codec=OpenAiLines(parts.registry),
            telemetry=self.telemetry,
            clock=time.time,
            new_id=new_id,
            abort=_no_abort,
            metering=self.metering,
        )
        return Advancer(parts.file_batches, self._files, tools, BATCH_PACE, self.revocations)

    @cached_property
    def _files(self) -> Files:
        return Files(self.parts.files, self.parts.blobs, time.time, new_id)

    @cached_property
    def _direct(self) -> DirectLane:
        parts = self.parts
        seats = Seats(parts.registry, parts.in_flight, self.fleet.windows, time.time)
        return DirectLane(
            parts.registry,
            self.fleet,
            seats,
            self.telemetry,
            time.time,
            cold_starts=self.cold_starts,
            accounting=self.accounting,
            metering=self.metering,
        )

    async def _metrics(self) -> str:
        parts = self.parts
        depth = await parts.queue.depth("")
        alive = await parts.workers.workers(time.time())
        loads = {
            spec.name: await load_of(
                spec, await parts.registry.pools(spec.name), parts.in_flight, alive
            )
            for spec in await parts.registry.models()
        }
        lately = (await pinged_health(parts.registry, time.time)).workers
        return exposition(lately, depth, loads)


def _no_abort(job_id: JobId) -> None:
    """The runner of a job is another Lambda: its late result is refused instead."""
