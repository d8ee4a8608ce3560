"""Working in-memory implementations of what file batches need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from synapse.domain.access import Principal
from synapse.domain.errors import InvalidRequest, SynapseError
from synapse.domain.file_batch import FileBatch, FileBatchId
from synapse.domain.inference import ModelInput, Result
from synapse.domain.job import Failure
from synapse.ports.file_batches import LineRequest


class MemoryFileBatchStore:
    """Records in a dict."""

    def __init__(self) -> None:
        self.batches: dict[FileBatchId, FileBatch] = {}

    async def create(self, batch: FileBatch) -> None:
        if batch.id in self.batches:
            raise ValueError(f"there is a batch {batch.id} already")
        self.batches[batch.id] = batch

    async def get(self, tenant: str, batch_id: FileBatchId) -> FileBatch | None:
        batch = self.batches.get(batch_id)
        return batch if batch is not None and batch.tenant == tenant else None

    async def save(self, batch: FileBatch) -> bool:
        current = self.batches.get(batch.id)
        if current is None or current.revision != batch.revision - 1:
            return False
        self.batches[batch.id] = batch
        return True

    async def page(self, tenant: str, after: FileBatchId | None, limit: int) -> Sequence[FileBatch]:
        ids = sorted((b.id for b in self.batches.values() if b.tenant == tenant), reverse=True)
        return [self.batches[i] for i in ids if after is None or i < after][:limit]

    async def open(self) -> Sequence[FileBatch]:
        return [b for _, b in sorted(self.batches.items()) if not b.status.is_final]


@dataclass
class RecordingFileBatchStarter:
    """Keeps which batches it was to start."""

    started: list[FileBatchId] = field(default_factory=list)

    async def start(self, batch: FileBatch) -> None:
        self.started.append(batch.id)


class PlainCodec:
    """Lines with a model and a prompt, answered with the text alone."""

    endpoints = ("/v1/completions", "/v1/embeddings")

    async def parse(self, endpoint: str, body: Mapping[str, Any], caller: Principal) -> LineRequest:
        if not isinstance(body.get("prompt"), str):
            raise InvalidRequest("prompt: is required", param="prompt")
        return LineRequest(body.get("model", "echo"), ModelInput(body["prompt"]))

    async def render(
        self, endpoint: str, body: Mapping[str, Any], job_id: str, created_at: float, result: Result
    ) -> Mapping[str, Any]:
        return {"prompt": body["prompt"], "text": getattr(result, "text", None)}

    async def refusal(
        self, endpoint: str, body: Mapping[str, Any], error: SynapseError | Failure
    ) -> tuple[int, Mapping[str, Any]]:
        return 400, {"error": {"message": error.message, "code": error.code}}
