"""File batches to their Standard state machine, `statemachines/file_batch.asl.json`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call, error_code
from synapse.adapters.codec import file_batch_to_event
from synapse.domain.file_batch import FileBatch
from synapse.ports import Clock

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions.client import SFNClient

SAME_NAME_S = 240
"""A batch that stands still at one revision is given another execution after so long at most: less
than it takes to be noticed."""


class StepFunctionsFileBatchStarter:
    """The FileBatchStarter of the AWS target.

    Starting a batch that is driven already gives it a second driver, whose steps do no harm: that
    is how a cancelled one is seen to at once. The name keeps one cause from starting several.
    """

    def __init__(
        self, client: SFNClient, state_machine_arn: str, *, clock: Clock = time.time
    ) -> None:
        self._client = client
        self._arn = state_machine_arn
        self._clock = clock

    async def start(self, batch: FileBatch) -> None:
        """See the port."""
        name = f"{batch.id}-{batch.revision}-{int(self._clock() // SAME_NAME_S)}"
        try:
            await call(
                self._client.start_execution,
                stateMachineArn=self._arn,
                name=name,
                input=json.dumps(file_batch_to_event(batch.tenant, batch.id)),
            )
        except ClientError as error:
            if error_code(error) != "ExecutionAlreadyExists":
                raise
