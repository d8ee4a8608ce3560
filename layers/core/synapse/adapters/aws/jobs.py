"""Job records in DynamoDB: one item a job (`job_items`), every change one conditional write."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call, error_code
from synapse.adapters.aws.counting import Counting
from synapse.adapters.aws.creation import Creation, KeyHolder
from synapse.adapters.aws.items import (
    CONDITION_FAILED,
    Update,
    attribute,
    attributes,
    plain,
    read_item,
)
from synapse.adapters.aws.job_items import (
    OPEN_INDEX,
    OPEN_SHARDS,
    changes,
    job_id_of,
    job_of,
    new_item,
    new_write_id,
    pk,
)
from synapse.adapters.records import Record, job_to_record, outcome_to_record
from synapse.domain.errors import IdempotencyConflict, SynapseError, Unavailable
from synapse.domain.job import (
    Failure,
    Job,
    JobId,
    JobState,
    Lease,
    Outcome,
    require_final,
    sources,
)
from synapse.ports import Clock, Created, Idempotency
from synapse.ports.meter import Meter

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

logger = logging.getLogger(__name__)

RETENTION_S = 7 * 86_400.0
FIRST_WATCH_S = 0.05
LONGEST_WATCH_S = 1.0
MAX_WATCHED = 1000
CLAIM_TRIES = 5
KEY_TRIES = 3


class _Written(NamedTuple):
    """Whether a conditional write took place, and the job as it stands (None: there is none)."""

    done: bool
    job: Job | None


class DynamoJobStore:
    """The JobStore of the AWS target."""

    def __init__(
        self,
        client: DynamoDBClient,
        table: str,
        *,
        clock: Clock = time.time,
        retention_s: float = RETENTION_S,
        usage_table: str | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._client = client
        self._table = table
        self._clock = clock
        self._retention_s = retention_s
        self._creation = Creation(client, table, clock)
        self._counting = Counting(client, table, usage_table, meter)
        self._expects_short_deadlines = False
        self._watch_s: dict[JobId, float] = {}

    async def create(self, job: Job, idempotency: Idempotency | None = None) -> Created:
        """See the port. An id that is taken is a ValueError, and nothing is overwritten."""
        item = new_item(job, self._retention_s)
        try:
            return await self._create(job, item, idempotency)
        except Unavailable:
            # Told as refused, it would be run all the same: by the sweeper, counted on no meter.
            if not await self._creation.was_written(item):
                raise
            return Created(job, is_new=True)

    async def _create(self, job: Job, item: Record, idempotency: Idempotency | None) -> Created:
        if idempotency is None:
            await self._creation.put(item)
            return Created(job, is_new=True)
        gone: JobId | None = None
        for _ in range(KEY_TRIES):
            holder = await self._creation.put_with_key(item, idempotency, gone)
            if holder is None:
                return Created(job, is_new=True)
            first = await self._job_of(holder, idempotency)
            if first is not None:
                return Created(first, is_new=False)
            gone = holder.job_id
        raise Unavailable("the idempotency key is in use by many requests at once")

    @asynccontextmanager
    async def recording(self, job: Job) -> AsyncIterator[None]:
        """See the port. Workers are elsewhere: they find what is in the table."""
        await self.create(job)
        yield

    async def made_with(self, tenant: str, idempotency: Idempotency) -> Job | None:
        """See the port."""
        holder = await self._creation.holder(tenant, idempotency.key)
        return None if holder is None else await self._job_of(holder, idempotency)

    async def _job_of(self, holder: KeyHolder, idempotency: Idempotency) -> Job | None:
        first = await self.get(holder.job_id)
        if first is not None and holder.fingerprint != idempotency.fingerprint:
            raise IdempotencyConflict("the idempotency key was used with another body before")
        return first

    async def create_many(self, jobs: Sequence[Job]) -> None:
        """See the port. After an error none of the jobs is left to run."""
        created = await asyncio.gather(*(self.create(job) for job in jobs), return_exceptions=True)
        errors = [answer for answer in created if isinstance(answer, BaseException)]
        if errors:
            # What failed for another reason than a taken id may have been written all the same.
            ours = [
                job
                for job, answer in zip(jobs, created, strict=True)
                if not isinstance(answer, ValueError)
            ]
            await self._undo(ours)
            raise errors[0]

    async def _undo(self, jobs: Sequence[Job]) -> None:
        failure = Failure("not_recorded", "jobs sent together were not all recorded; none ran")
        try:
            await asyncio.gather(
                *(self.close(job.id, JobState.FAILED, failure, self._clock()) for job in jobs)
            )
        except (SynapseError, ClientError):
            logger.exception("jobs not undone; the sweeper will run them", extra={"n": len(jobs)})

    async def get(self, job_id: JobId) -> Job | None:
        """See the port."""
        record = await self._item(job_id)
        if record is None or record["ttl"] <= self._clock():
            return None
        return job_of(record)

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, now: float) -> list[Job]:
        """See the port. One write for a waiting job, two where the first guess was wrong."""
        ids = dict.fromkeys(job_ids)
        jobs = await asyncio.gather(*(self._claim(job_id, lease, now) for job_id in ids))
        return [job for job in jobs if job is not None]

    async def _claim(self, job_id: JobId, lease: Lease, now: float) -> Job | None:
        written = await self._claim_waiting(job_id, lease, now)
        for _ in range(CLAIM_TRIES):
            job = written.job
            if written.done or job is None or not job.can_be_claimed(lease.owner, now):
                break
            if job.state is JobState.QUEUED:
                self._expects_short_deadlines = job.deadline_at < lease.expires_at
            written = await self._replace(job, job.claimed(lease, now))
        return written.job if written.done else None

    async def _claim_waiting(self, job_id: JobId, lease: Lease, now: float) -> _Written:
        """Claim a job unseen, guessing that it waits and whether its deadline ends the lease.

        `Job.due_at` is the earlier of the two, and an update can compare but not compute a
        minimum; the jobs of a batch mostly have like deadlines, so the last answer is the guess.
        """
        update = Update()
        ends, deadline = update.value(lease.expires_at), update.name("deadline_at")
        if self._expects_short_deadlines:
            update.put_expression("due_at", deadline).only_if(f"{deadline} < {ends}")
        else:
            update.put_expression("due_at", ends).only_if(f"{deadline} >= {ends}")
        update.put(
            {
                "state": JobState.RUNNING,
                "lease_owner": lease.owner,
                "lease_expires_at": lease.expires_at,
                "started_at": now,
            }
        )
        return await self._write(job_id, update.only_if_one_of("state", sources(JobState.RUNNING)))

    async def _replace(self, old: Job, new: Job) -> _Written:
        """Write `new` if the job still stands as `old` in all that a claim depends on."""
        before = job_to_record(old)
        conditions = ("state", "sends", "losses", "lease_owner", "lease_expires_at")
        update = Update().only_if_equal({key: before.get(key) for key in conditions})
        return await self._write(old.id, update.put(changes(old, new)))

    async def settle(self, outcome: Outcome, owner: str, now: float) -> Job | None:
        """See the port."""
        ending = self._counting.ending()
        update = Update().put({**ending, **outcome_to_record(outcome), "finished_at": now})
        update.only_if_one_of("state", sources(outcome.state))
        update.only_if_equal({"lease_owner": owner})
        return await self._counted(await self._job_if_written(outcome.job_id, update))

    async def close(
        self, job_id: JobId, state: JobState, failure: Failure | None, now: float
    ) -> Job | None:
        """See the port."""
        require_final(state)
        ending = self._counting.ending(now)
        update = Update().put({**ending, "state": state, "finished_at": now})
        if failure is not None:
            update.put({"failure_code": failure.code, "failure_message": failure.message})
            if failure.param is not None:
                update.put({"failure_param": failure.param})
        update.only_if_one_of("state", sources(state))
        return await self._counted(await self._job_if_written(job_id, update))

    async def requeue(
        self, job: Job, now: float, *, lost: bool, unanswered: bool = False
    ) -> Job | None:
        """See the port."""
        if job.state.is_final:
            return None
        owner = job.lease.owner if job.lease else None
        update = Update().only_if_equal(
            {"state": job.state, "lease_owner": owner, "sends": job.sends}
        )
        change = changes(job, job.requeued(now, lost=lost, unanswered=unanswered))
        if change.pop("losses", None) is not None:
            # Added to what the item says: the lease may have come and gone since `job` was read.
            update.put_expression("losses", f"{update.name('losses')} + {update.value(1)}")
        return await self._job_if_written(job.id, update.put(change))

    async def due(self, now: float, limit: int) -> list[Job]:
        """See the port. The index may lag; what it names is read again and judged as it is.

        Ended jobs that it names have not been counted: that is made up for.
        """
        pages = await asyncio.gather(*(self._due_in(shard, now, limit) for shard in OPEN_SHARDS))
        named = sorted(entry for page in pages for entry in page)[:limit]
        jobs = await asyncio.gather(*(self.get(job_id) for _, job_id in named))
        await asyncio.gather(*(self._counted(job) for job in jobs))
        due = [(job.due_at, job) for job in jobs if job is not None and job.due_at is not None]
        due = [(due_at, job) for due_at, job in due if due_at <= now]
        return [job for _, job in sorted(due, key=lambda entry: entry[0])]

    async def _due_in(self, shard: str, now: float, limit: int) -> list[tuple[float, JobId]]:
        page = await call(
            self._client.query,
            TableName=self._table,
            IndexName=OPEN_INDEX,
            KeyConditionExpression="open_shard = :shard AND due_at <= :now",
            ExpressionAttributeValues=attributes({":shard": shard, ":now": now}),
            ProjectionExpression="pk, due_at",
            Limit=limit,
        )
        items = [plain(item) for item in page["Items"]]
        return [(item["due_at"], job_id_of(item["pk"])) for item in items]

    async def watch(self, job_id: JobId, timeout_s: float) -> None:
        """See the port. Nothing tells of an end: wait 50 ms, then ever longer, up to a second."""
        pause_s = self._watch_s.pop(job_id, FIRST_WATCH_S)
        self._watch_s[job_id] = min(LONGEST_WATCH_S, pause_s * 1.5)
        while len(self._watch_s) > MAX_WATCHED:
            del self._watch_s[next(iter(self._watch_s))]
        await asyncio.sleep(min(pause_s, timeout_s))

    async def _item(self, job_id: JobId) -> Record | None:
        return await read_item(self._client, self._table, {"pk": pk(job_id)})

    async def _counted(self, job: Job | None) -> Job | None:
        """The same job, counted if it has ended."""
        if job is not None:
            await self._counting.count(job)
        return job

    async def _job_if_written(self, job_id: JobId, update: Update) -> Job | None:
        written = await self._write(job_id, update)
        return written.job if written.done else None

    async def _write(self, job_id: JobId, update: Update) -> _Written:
        write_id = new_write_id()
        try:
            answer = await call(
                self._client.update_item,
                TableName=self._table,
                Key={"pk": attribute(pk(job_id))},
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **update.put({"write_id": write_id}).arguments(),
            )
        except ClientError as error:
            if error_code(error) != CONDITION_FAILED:
                raise
            response: Any = error.response
            item = response.get("Item")
            record = plain(item) if item else await self._item(job_id)
        else:
            record = plain(answer["Attributes"])
        if record is None:
            return _Written(False, None)
        return _Written(record["write_id"] == write_id, job_of(record))
