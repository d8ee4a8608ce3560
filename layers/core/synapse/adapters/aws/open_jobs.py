"""What waits among the open jobs: each entry of their index is looked at, each record read once.

The index has keys only: which model, tier and engine a job wants is in its record, and stays as it
is. So it is read once, in hundreds, and remembered as long as the job is open; a kind of which few
wait is seen behind whatever else does. Entries beyond `entries` a shard have their turn at the next
looks; until one pass is through, the jobs that the pass before has seen count as they were then.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from synapse.adapters.aws.calls import call
from synapse.adapters.aws.items import attribute, plain
from synapse.adapters.aws.job_items import OPEN_INDEX, OPEN_SHARDS, job_id_of, pk
from synapse.adapters.records import requires_of
from synapse.domain.errors import Unavailable
from synapse.domain.extension import Extensions
from synapse.domain.job import JobId, JobState, SlaTier

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

LOOKED_AT = 2_500
"""Entries of a shard at a look: 20,000 in all, which bounds what a look takes and costs. With five
looks a minute the kinds of 200,000 open jobs are known in two."""

READ_TOGETHER = 100
"""Records; DynamoDB takes no more."""

SAMPLE = 16
"""Jobs of a kind that may run or wait, of which it is read what they do."""

NAMES = {f"#{name}": name for name in ("pk", "model", "sla", "requires", "items", "state")}
"""Of what is read of a record; some are reserved words."""

LONGEST_LEASE_S = 130.0
"""A batch is ours for as long as a runner may run (120 s): who is due later than that waits."""


class Kind(NamedTuple):
    """What a job asks of workers."""

    model: str
    tier: SlaTier
    requires: Extensions


class _Open(NamedTuple):
    kind: Kind
    due_at: float
    items: int


class _Read(NamedTuple):
    kind: Kind
    items: int
    state: JobState


class _Records(NamedTuple):
    """Those that are there, and the jobs of which DynamoDB had no time to say."""

    read: Mapping[JobId, _Read]
    unread: frozenset[JobId]


class _Shard:
    """The jobs of one shard, as far as this pass has seen them and as the one before has."""

    def __init__(self) -> None:
        self.last_pass: dict[JobId, _Open] = {}
        self.this_pass: dict[JobId, _Open] = {}
        self.goes_on_after: Mapping[str, Any] | None = None

    def jobs(self) -> Mapping[JobId, _Open]:
        return self.last_pass | self.this_pass

    def seen(self, jobs: Mapping[JobId, _Open], goes_on_after: Mapping[str, Any] | None) -> None:
        """Add what a page showed; the one without a next ends the pass."""
        self.this_pass.update(jobs)
        self.goes_on_after = goes_on_after
        if goes_on_after is None:
            self.last_pass, self.this_pass = self.this_pass, {}


class OpenJobs:
    """Which kinds of jobs wait, and how many items of each: a job has one or more."""

    def __init__(self, client: DynamoDBClient, table: str, entries: int = LOOKED_AT) -> None:
        self._client = client
        self._table = table
        self._entries = entries
        self._shards = {name: _Shard() for name in OPEN_SHARDS}

    async def waiting(self, now: float) -> Counter[Kind]:
        """Look on, and count those that wait.

        Raises:
            Unavailable: the jobs could not be read.
        """
        for name, shard in self._shards.items():
            await self._look(name, shard)
        waiting, unsure = Counter[Kind](), defaultdict[Kind, dict[JobId, _Open]](dict)
        for shard in self._shards.values():
            for job_id, job in shard.jobs().items():
                if job.due_at > now + LONGEST_LEASE_S:
                    waiting[job.kind] += job.items
                else:
                    unsure[job.kind][job_id] = job
        waiting.update(await self._waiting_of(unsure))
        return waiting

    async def _look(self, name: str, shard: _Shard) -> None:
        start: dict[str, Any] = {}
        if shard.goes_on_after is not None:
            start = {"ExclusiveStartKey": shard.goes_on_after}
        page: Any = await call(
            self._client.query,
            TableName=self._table,
            IndexName=OPEN_INDEX,
            KeyConditionExpression="open_shard = :shard",
            ExpressionAttributeValues={":shard": attribute(name)},
            ProjectionExpression="pk, due_at",
            Limit=self._entries,
            **start,
        )
        due = {job_id_of(entry["pk"]["S"]): float(entry["due_at"]["N"]) for entry in page["Items"]}
        known = shard.jobs()
        jobs = {job_id: known[job_id]._replace(due_at=due[job_id]) for job_id in due.keys() & known}
        records = await self._read([job_id for job_id in due if job_id not in jobs])
        if records.unread and not records.read:
            raise Unavailable("DynamoDB reads no records of jobs now")
        jobs |= {
            job_id: _Open(each.kind, due[job_id], each.items)
            for job_id, each in records.read.items()
        }
        shard.seen(jobs, page.get("LastEvaluatedKey"))

    async def _waiting_of(self, unsure: Mapping[Kind, Mapping[JobId, _Open]]) -> Counter[Kind]:
        """How many wait of jobs that may run as well: by a few of each kind, from first to last.

        Raises:
            Unavailable: there is a kind of which none could be read.
        """
        samples = {kind: _spread(jobs) for kind, jobs in unsure.items()}
        records = await self._read([job_id for sample in samples.values() for job_id in sample])
        waits = {job_id for job_id, each in records.read.items() if each.state is JobState.QUEUED}
        found = Counter[Kind]()
        for kind, jobs in unsure.items():
            told = [job_id for job_id in samples[kind] if job_id not in records.unread]
            if not told:
                raise Unavailable("DynamoDB reads no records of jobs of a kind now")
            queued = sum(jobs[job_id].items for job_id in told if job_id in waits)
            if queued:
                share = queued / sum(jobs[job_id].items for job_id in told)
                found[kind] = max(1, round(share * sum(job.items for job in jobs.values())))
        return found

    async def _read(self, job_ids: Sequence[JobId]) -> _Records:
        """The jobs that are on record; what is unread comes up again with a later look.

        One page after the other: all at once they would use up what callers are to read with.
        """
        read, unread = dict[JobId, _Read](), set[JobId]()
        for start in range(0, len(job_ids), READ_TOGETHER):
            page = await self._read_some(job_ids[start : start + READ_TOGETHER])
            read |= page.read
            unread |= page.unread
        return _Records(read, frozenset(unread))

    async def _read_some(self, job_ids: Sequence[JobId]) -> _Records:
        answer: Any = await call(
            self._client.batch_get_item,
            RequestItems={
                self._table: {
                    "Keys": [{"pk": attribute(pk(job_id))} for job_id in job_ids],
                    "ProjectionExpression": ", ".join(NAMES),
                    "ExpressionAttributeNames": NAMES,
                }
            },
        )
        items = [plain(item) for item in answer["Responses"].get(self._table, ())]
        left = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", ())
        return _Records(
            {job_id_of(item["pk"]): _read_of(item) for item in items},
            frozenset(job_id_of(key["pk"]["S"]) for key in left),
        )


def _read_of(item: Mapping[str, Any]) -> _Read:
    kind = Kind(item["model"], SlaTier(item["sla"]), requires_of(item))
    return _Read(kind, int(item.get("items", 1)), JobState(item["state"]))


def _spread(jobs: Mapping[JobId, _Open]) -> Sequence[JobId]:
    """At most `SAMPLE` of them, evenly from the first that is due to the last."""
    by_due = sorted(jobs, key=lambda job_id: (jobs[job_id].due_at, job_id))
    step = max(1.0, len(by_due) / SAMPLE)
    return [by_due[int(number * step)] for number in range(min(SAMPLE, len(by_due)))]
