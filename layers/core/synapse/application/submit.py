"""Accept a job: validate against the model, record it durably, then tell the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from synapse.application.checks import MAX_INPUT_BYTES, check_input, runnable_model
from synapse.application.cold_start import ColdStart, ColdStarts
from synapse.application.intake import (
    SubmitJob,
    idempotency_of,
    job_need,
    message_of,
    new_job,
)
from synapse.application.metering import Ask, Metering
from synapse.application.payloads import stowed
from synapse.application.webhooks import Audience
from synapse.domain.errors import InvalidRequest, SynapseError, Unavailable
from synapse.domain.estimate import estimated_wait_s, queue_position
from synapse.domain.job import NOT_QUEUED, Job, JobId, JobState
from synapse.domain.limiting import Standing
from synapse.domain.metering import is_limited
from synapse.domain.model import ModelSpec
from synapse.ports import (
    BlobStore,
    Clock,
    Created,
    Idempotency,
    JobQueue,
    JobStore,
    Registry,
    Telemetry,
)


@dataclass(frozen=True, slots=True)
class SubmitLimits:
    """What a deployment accepts: UTF-8 bytes of input, and seconds a job may take in all."""

    max_input_bytes: int = MAX_INPUT_BYTES
    default_timeout_s: float = 3600.0
    max_timeout_s: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted job, its place in the queue (1 is next), and its wait if it can be told.

    `is_cold` says that no worker is up for it yet; until one is, is part of the wait. `standing`
    is what is left of the caller's limits, None if it has none or the job was there already.
    """

    job: Job
    queue_position: int
    estimated_wait_s: float | None
    is_cold: bool = False
    standing: Standing | None = None


class _Recorded(NamedTuple):
    """The job on record, and why the queue could not be told of it, if it could not."""

    created: Created
    unsent: Unavailable | None


@dataclass(frozen=True, slots=True)
class Submitter:
    """The use case behind every way of submitting."""

    store: JobStore
    queue: JobQueue
    blobs: BlobStore
    registry: Registry
    telemetry: Telemetry
    clock: Clock
    new_id: Callable[[], str]
    limits: SubmitLimits = SubmitLimits()
    cold_starts: ColdStarts | None = None
    audience: Audience | None = None
    metering: Metering | None = None

    async def submit(self, command: SubmitJob) -> Accepted:
        """Accept one job; when this returns, the job is durable and will end.

        Raises:
            RequestError: the request is at fault; nothing was recorded.
            Unavailable: the job could not be recorded or queued; nothing will come of it, unless
                it has a key: that one may be on record, to be found by who sends it again.
        """
        spec = await self._model(command)
        (created, unsent), standing = await self._create(command, spec)
        if created.is_new:
            self.telemetry.submitted(created.job)
        if unsent is not None:
            await self._not_queued(created.job, keyed=command.idempotency_key is not None)
            raise unsent
        cold = await self._arrived(created, command, spec)
        return replace(await self._accepted(created.job, spec, cold), standing=standing)

    async def submit_many(self, commands: Sequence[SubmitJob]) -> list[Accepted | SynapseError]:
        """Submit each on its own: a bad one is answered with its error and spares the others."""

        async def one(command: SubmitJob) -> Accepted | SynapseError:
            try:
                return await self.submit(command)
            except SynapseError as error:
                return error

        return list(await asyncio.gather(*(one(command) for command in commands)))

    async def _model(self, command: SubmitJob) -> ModelSpec:
        spec = await runnable_model(self.registry, command.model, command.caller)
        command.caller.require_tier(command.sla)
        check_input(command.input, spec, self.limits.max_input_bytes, command.length_at)
        timeout_s = command.timeout_s
        if timeout_s is not None and not 0 < timeout_s <= self.limits.max_timeout_s:
            raise InvalidRequest(
                f"timeout: must be more than 0 and at most {self.limits.max_timeout_s:g} seconds",
                param="timeout",
            )
        return spec

    async def _new_job(
        self, command: SubmitJob, spec: ModelSpec, job_id: JobId, now: float, deadline_at: float
    ) -> Job:
        announce = await self._announces(command)
        job = await stowed(self.blobs, new_job(command, spec, job_id, now, deadline_at))
        return replace(job, announce=announce, callback_url=command.callback_url)

    async def _announces(self, command: SubmitJob) -> bool:
        if self.audience is not None:
            return await self.audience.wants(command.caller.tenant, command.callback_url)
        if command.callback_url is not None:
            raise InvalidRequest("callback_url: no webhooks are sent here", param="callback_url")
        return False

    async def _create(
        self, command: SubmitJob, spec: ModelSpec
    ) -> tuple[_Recorded, Standing | None]:
        """Record a job, counted against its caller's limits; or find the one made before."""
        idempotency, caller = idempotency_of(command), command.caller
        job_id, now = JobId(self.new_id()), self.clock()
        timeout_s = command.timeout_s or self.limits.default_timeout_s
        place = (job_id, now, now + timeout_s)
        if self.metering is None or not is_limited(caller):
            job = await self._new_job(command, spec, *place)
            return await self._record(job, idempotency), None
        if idempotency is not None:
            earlier = await self.store.made_with(caller.tenant, idempotency)
            if earlier is not None:
                return await self._found(earlier), None
        need = job_need(command, spec)
        ask = Ask(caller, spec, command.input, need, timeout_s, command.length_at)
        ticket = await self.metering.admit_job(ask, job_id, now + timeout_s)
        try:
            job = replace(await self._new_job(command, spec, *place), metered=True)
            recorded = await self._record(job, idempotency)
        except Exception:
            await self.metering.forget(ticket)
            raise
        if not recorded.created.is_new:
            await self.metering.forget(ticket)
        return recorded, ticket.standing if ticket else None

    async def _record(self, job: Job, idempotency: Idempotency | None) -> _Recorded:
        """Put a job on record and tell the queue, before it is durable if the store lets us."""
        if idempotency is not None:
            created = await self.store.create(job, idempotency)
            return _Recorded(created, await self._send(created.job))
        async with self.store.recording(job):
            unsent = await self._send(job)
        return _Recorded(Created(job, is_new=True), unsent)

    async def _found(self, job: Job) -> _Recorded:
        return _Recorded(Created(job, is_new=False), await self._send(job))

    async def _send(self, job: Job) -> Unavailable | None:
        if job.state is JobState.QUEUED:
            try:
                await self.queue.send([message_of(job)])
            except Unavailable as error:
                return error
        return None

    async def _not_queued(self, job: Job, *, keyed: bool) -> None:
        # A keyed request that is sent again finds its record and sends the message again;
        # without a key nobody would, so the record is closed.
        if not keyed:
            now = self.clock()
            ended = await self.store.close(job.id, JobState.FAILED, NOT_QUEUED, now)
            if ended is not None:
                self.telemetry.ended(ended)

    async def _arrived(
        self, created: Created, command: SubmitJob, spec: ModelSpec
    ) -> ColdStart | None:
        if self.cold_starts is None or created.job.state is not JobState.QUEUED:
            return None
        need = job_need(command, spec)
        if created.is_new:
            return await self.cold_starts.job_arrived(created.job, spec, need)
        return await self.cold_starts.of(spec, need)

    async def _accepted(self, job: Job, spec: ModelSpec, cold: ColdStart | None) -> Accepted:
        if job.state is not JobState.QUEUED:
            return Accepted(job, 0, 0.0)
        start_s = None if cold is None else cold.wait_s
        try:
            depth = await self.queue.depth(spec.name)
            items = await self.queue.items(spec.name)
            rate = await self.registry.service_rate(spec.name, self.clock())
            slots = await self.cold_starts.slots_up(spec) if self.cold_starts else 0
        except Unavailable:
            # The job is accepted and will run: that its wait cannot be told is no refusal.
            return Accepted(job, 1, start_s, cold is not None)
        ahead = {**depth, job.priority: max(0, depth.get(job.priority, 0) - 1)}
        position = queue_position(ahead, job.priority)
        if position > 1:  # who is next has nobody to wait for, however long that would take
            rate = rate.of_items(spec.task)
        # Each job ahead has an item at least, also where the queue does not know how many.
        place = max(position, queue_position(items, job.priority) - job.items)
        wait_s = estimated_wait_s(place, rate, slots or spec.slots)
        if cold is not None:
            wait_s = None if start_s is None else start_s + (wait_s or 0.0)
        return Accepted(job, position, wait_s, cold is not None)
