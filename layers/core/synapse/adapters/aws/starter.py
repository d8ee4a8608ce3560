"""Batches to the Express state machine, `statemachines/batcher.asl.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from synapse.adapters.aws.calls import call
from synapse.adapters.codec import order_to_event
from synapse.ports import BatchOrder

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions.client import SFNClient

MAX_BATCHES = 40
"""An inline Map runs no more at once; the rest would wait and run into the five minutes' limit."""

MAX_INPUT_BYTES = 240 * 1024
"""Step Functions takes 256 KiB in all."""

MAX_NAME_CHARS = 80


class StepFunctionsBatchStarter:
    """The BatchStarter of the AWS target."""

    def __init__(self, client: SFNClient, state_machine_arn: str) -> None:
        self._client = client
        self._arn = state_machine_arn

    async def start(self, orders: Sequence[BatchOrder]) -> None:
        """See the port.

        Orders beyond one execution's limits start several. If one of those cannot be started,
        the earlier ones run nevertheless; handing their jobs over again does no harm, because
        a claimed job is not given to another batch.
        """
        for events in _executions([order_to_event(order) for order in orders]):
            await call(
                self._client.start_execution,
                stateMachineArn=self._arn,
                # Batches are found in the log by it: the log holds no execution's data.
                name=re.sub(r"[^\w-]", "-", events[0]["batchId"], flags=re.ASCII)[:MAX_NAME_CHARS],
                input=_dumps({"batches": events}),
            )


def _executions(events: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Split into executions' inputs that keep both limits."""
    part: list[dict[str, Any]] = []
    size = 0
    for event in events:
        event_size = len(_dumps(event).encode()) + 1
        if part and (len(part) == MAX_BATCHES or size + event_size > MAX_INPUT_BYTES):
            yield part
            part, size = [], 0
        part.append(event)
        size += event_size
    if part:
        yield part


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
