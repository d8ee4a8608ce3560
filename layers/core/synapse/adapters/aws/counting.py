"""Jobs' ends are counted exactly once: by a transaction that takes the job's mark away.

A job ends with the mark `uncounted` and stays in the index of open jobs, due when its lease ends or
in a minute. Whoever ended it counts it at once; if that is not done, the sweeper comes across it.
What the job has reserved is settled before the mark goes, so that this is done in the end too; a
second time does nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from synapse.adapters.aws.items import attribute
from synapse.adapters.aws.job_items import ENDED, pk
from synapse.adapters.aws.usage import addition, transact_in_turn
from synapse.domain.errors import Unavailable
from synapse.domain.job import Job
from synapse.domain.metering import reservation_of, used_by_job
from synapse.domain.usage import used_by
from synapse.ports.meter import Meter

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

logger = logging.getLogger(__name__)

COUNT_AGAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Counting:
    """Counts in `usage_table` what jobs used, and settles at the `meter` what they reserved.

    Without a table nothing is counted, and nothing settled.
    """

    client: DynamoDBClient
    jobs_table: str
    usage_table: str | None
    meter: Meter | None = None

    def ending(self, now: float | None = None) -> Mapping[str, Any]:
        """What the item of a job that ends is to have besides, and to have no more (None).

        One that its runner ends (no `now`) stays due at the end of its lease, two minutes after its
        begin at the latest: an entry of the index that moves is two writes, and most are counted
        and gone from it before.
        """
        if self.usage_table is None:
            return ENDED
        lease_gone = {name: value for name, value in ENDED.items() if name.startswith("lease_")}
        again = {} if now is None else {"due_at": now + COUNT_AGAIN_S}
        return {**lease_gone, **again, "uncounted": 1}

    async def count(self, job: Job) -> None:
        """Count and settle an ended job, unless it has been.

        Raises nothing: the sweeper tries again.
        """
        table = self.usage_table
        if table is None or not job.state.is_final:
            return
        key, used = used_by(job)
        mark: dict[str, Any] = {
            "Update": {
                "TableName": self.jobs_table,
                "Key": {"pk": attribute(pk(job.id))},
                "UpdateExpression": "REMOVE uncounted, open_shard, due_at",
                "ConditionExpression": "attribute_exists(uncounted)",
            }
        }
        try:
            if self.meter is not None and job.metered:
                await self.meter.settle(reservation_of(job), used_by_job(job))
            await transact_in_turn(self.client, lambda: [mark, addition(table, key, used)])
        except (Unavailable, ClientError):
            logger.exception("a job's usage is not counted yet", extra={"job": job.id})
