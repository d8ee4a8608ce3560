"""Batches of requests from files: their records, what drives them, and what their lines mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from synapse.domain.access import Principal
from synapse.domain.errors import SynapseError
from synapse.domain.file_batch import FileBatch, FileBatchId
from synapse.domain.inference import ModelInput, Result
from synapse.domain.job import Failure


class FileBatchStore(Protocol):
    """Records of file batches. All writes are durable on return."""

    async def create(self, batch: FileBatch) -> None:
        """Record a new batch.

        Raises:
            ValueError: the id is taken.
        """
        ...

    async def get(self, tenant: str, batch_id: FileBatchId) -> FileBatch | None:
        """The tenant's batch of that id, or None."""
        ...

    async def save(self, batch: FileBatch) -> bool:
        """Replace the record, if it still is at the revision before that of `batch`.

        False if it is not: somebody else has moved the batch on.
        """
        ...

    async def page(self, tenant: str, after: FileBatchId | None, limit: int) -> Sequence[FileBatch]:
        """The tenant's next batches after that id, newest first."""
        ...

    async def open(self) -> Sequence[FileBatch]:
        """All tenants' batches that have not ended, oldest first."""
        ...


class FileBatchStarter(Protocol):
    """Sees to it that a batch is advanced until it ends."""

    async def start(self, batch: FileBatch) -> None:
        """Begin, or go on at once if it waits.

        Raises:
            Unavailable: it could not be started now.
        """
        ...


@dataclass(frozen=True, slots=True)
class LineRequest:
    """What a line's body asks for; `length_at` is where it says how long its answer may be."""

    model: str
    input: ModelInput
    length_at: str = "max_tokens"


class LineCodec(Protocol):
    """A line's body as the synchronous route of its endpoint takes and answers it."""

    @property
    def endpoints(self) -> Sequence[str]:
        """The routes whose bodies are understood."""
        ...

    async def parse(self, endpoint: str, body: Mapping[str, Any], caller: Principal) -> LineRequest:
        """What the body asks for.

        Raises:
            SynapseError: the route would refuse it, from that caller.
        """
        ...

    async def render(
        self, endpoint: str, body: Mapping[str, Any], job_id: str, created_at: float, result: Result
    ) -> Mapping[str, Any]:
        """The body that the route would have answered."""
        ...

    async def refusal(
        self, endpoint: str, body: Mapping[str, Any], error: SynapseError | Failure
    ) -> tuple[int, Mapping[str, Any]]:
        """The status and body with which the route would have refused that body."""
        ...
