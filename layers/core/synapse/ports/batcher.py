"""Who runs planned batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from synapse.domain.batching import Batch
from synapse.domain.pool import Pool


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """A batch and the pools that may run it, first choice first."""

    batch: Batch
    pools: tuple[Pool, ...]


class BatchStarter(Protocol):
    """Hands batches to the batcher: a state machine on AWS, tasks on one machine."""

    async def start(self, orders: Sequence[BatchOrder]) -> None:
        """Return once the batcher has taken all the orders.

        Raises:
            Unavailable: it did not take them all. Those it took run; ordering their jobs again
                does no harm, since a job that runs is given to no other batch.
        """
        ...
