"""Job messages in SQS: one queue a priority.

Each message is in the group of its tenant. The queues are standard ones, and SQS keeps such groups
fair: what a tenant with a long backlog has sent does not hold up what others send.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from synapse.adapters.aws.calls import call
from synapse.adapters.aws.groups import group_of
from synapse.adapters.codec import message_to_json
from synapse.domain.batching import JobMessage
from synapse.domain.errors import Unavailable
from synapse.domain.job import Priority
from synapse.domain.retry import RetryPolicy
from synapse.ports import Clock

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

logger = logging.getLogger(__name__)

MAX_BATCH = 10
"""Messages that SQS takes in one call."""

COUNTS: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed")

DEPTH_VALID_S = 2.0
PARTIAL_FAILURES = RetryPolicy(max_attempts=4, base_s=0.05, max_s=1.0)


class SqsJobQueue:
    """The JobQueue of the AWS target."""

    def __init__(
        self, client: SQSClient, urls: Mapping[Priority, str], *, clock: Clock = time.time
    ) -> None:
        self._client = client
        self._urls = urls
        self._clock = clock
        self._depth: Mapping[Priority, int] = {}
        self._depth_until = float("-inf")

    async def send(self, messages: Sequence[JobMessage]) -> None:
        """See the port."""
        ordered = sorted(messages, key=lambda message: message.priority.rank)
        parts = [
            (priority, part)
            for priority, group in groupby(ordered, key=lambda message: message.priority)
            for part in _parts(list(group))
        ]
        await asyncio.gather(*(self._send(priority, part) for priority, part in parts))

    async def gather(self, messages: Sequence[JobMessage], delay_s: float = 0.0) -> None:
        """Put messages, whatever their priority, where the dispatcher gets many after seconds.

        They are not there before so many more have passed (whole ones).

        Raises:
            Unavailable: some message could not be sent.
        """
        parts = _parts(messages)
        await asyncio.gather(*(self._send(Priority.LOW, part, delay_s) for part in parts))

    def gathers(self, arn: str) -> bool:
        """Whether the queue of this ARN is the one in which messages are gathered."""
        return arn.rpartition(":")[2] == self._urls[Priority.LOW].rpartition("/")[2]

    async def _send(
        self, priority: Priority, messages: Sequence[JobMessage], delay_s: float = 0.0
    ) -> None:
        pending = {str(n): _entry(str(n), message, delay_s) for n, message in enumerate(messages)}
        for failures in range(1, PARTIAL_FAILURES.max_attempts + 1):
            answer = await call(
                self._client.send_message_batch,
                QueueUrl=self._urls[priority],
                Entries=list(pending.values()),
            )
            failed = answer.get("Failed", [])
            if not failed:
                return
            codes = sorted({entry["Code"] for entry in failed})
            logger.warning("messages not sent", extra={"count": len(failed), "codes": codes})
            pending = {entry["Id"]: pending[entry["Id"]] for entry in failed}
            hopeless = any(entry["SenderFault"] for entry in failed)
            if hopeless or failures == PARTIAL_FAILURES.max_attempts:
                break
            await asyncio.sleep(PARTIAL_FAILURES.delay_s(failures, random.random()))
        raise Unavailable(f"{len(pending)} of {len(messages)} jobs could not be queued")

    async def depth(self, model: str) -> Mapping[Priority, int]:
        """See the port. SQS counts approximately, and cannot tell models apart.

        The last count serves for two seconds, and longer if SQS does not answer.
        """
        now = self._clock()
        if now < self._depth_until:
            return self._depth
        try:
            counts = await asyncio.gather(*(self._count(url) for url in self._urls.values()))
        except Unavailable:
            if not self._depth:
                raise
            logger.warning("queue depth not read", exc_info=True)
        else:
            self._depth = dict(zip(self._urls, counts, strict=True))
        self._depth_until = now + DEPTH_VALID_S
        return self._depth

    async def items(self, model: str) -> Mapping[Priority, int]:
        """See the port. SQS counts messages, whatever is in them."""
        return await self.depth(model)

    async def _count(self, url: str) -> int:
        """Those that may be received, and those that are kept for seconds."""
        answer = await call(
            self._client.get_queue_attributes, QueueUrl=url, AttributeNames=list(COUNTS)
        )
        return sum(int(answer["Attributes"][name]) for name in COUNTS)


def _entry(
    entry_id: str, message: JobMessage, delay_s: float
) -> SendMessageBatchRequestEntryTypeDef:
    entry: SendMessageBatchRequestEntryTypeDef = {
        "Id": entry_id,
        "MessageBody": message_to_json(message),
        "MessageGroupId": group_of(message.tenant),
    }
    if delay_s > 0:
        entry["DelaySeconds"] = math.ceil(delay_s)
    return entry


def _parts(messages: Sequence[JobMessage]) -> list[Sequence[JobMessage]]:
    return [messages[n : n + MAX_BATCH] for n in range(0, len(messages), MAX_BATCH)]
