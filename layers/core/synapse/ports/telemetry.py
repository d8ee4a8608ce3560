"""What an operator is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from synapse.domain.answer import Answered
from synapse.domain.batching import Batch
from synapse.domain.delivery import Delivery
from synapse.domain.file_batch import FileBatch
from synapse.domain.job import Job, Priority
from synapse.domain.model import WorkerHealth
from synapse.domain.pool import Pool
from synapse.domain.scaling import ScalingDecision


class Telemetry(Protocol):
    """Counts and times for the operator. Never blocks, never raises, never sees a prompt."""

    def submitted(self, job: Job) -> None:
        """A job was accepted."""
        ...

    def ended(self, job: Job) -> None:
        """A job reached a final state."""
        ...

    def batch_ran(self, batch: Batch, pool: Pool, seconds: float, errors: int) -> None:
        """A batch came back from a pool."""
        ...

    def answered(self, answered: Answered) -> None:
        """A request on the line came to its end, or was refused."""
        ...

    def file_batch_ended(self, batch: FileBatch) -> None:
        """A file batch reached a final status."""
        ...

    def webhook_tried(self, delivery: Delivery) -> None:
        """An attempt at a delivery was made, which stands so since."""
        ...

    def pinged(self, health: WorkerHealth) -> None:
        """A worker was tried."""
        ...

    def swept(self, remedies: Mapping[str, int]) -> None:
        """The sweeper went by; how often it applied each remedy."""
        ...

    def queue_depth(self, depth: Mapping[Priority, int]) -> None:
        """Jobs waiting per priority."""
        ...

    def pool_sized(self, pool: str, desired: int, ready: int, starting: int) -> None:
        """The workers of a pool at a round of the autoscaler: wanted, up, and on their way."""
        ...

    def scaled(self, decision: ScalingDecision) -> None:
        """The number of workers that a pool should have was changed."""
        ...

    def cold_started(self, model: str, pool: str, seconds: float) -> None:
        """A request or a job that came when no worker was up had its answer so much later."""
        ...
