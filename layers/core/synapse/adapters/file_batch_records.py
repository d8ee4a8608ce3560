"""A file batch as JSON text: what the stores of both targets keep of it.

Our own writing, and trusted. Open lines are kept as numbers in a row, since there are hundreds.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import chain
from typing import Any

from synapse.adapters.principal_records import principal_from_json, principal_to_json
from synapse.domain.access import ANYONE, Principal
from synapse.domain.file_batch import (
    Counts,
    Cursor,
    FileBatch,
    FileBatchId,
    FileBatchStatus,
    LineFault,
    OpenLine,
)
from synapse.domain.job import Usage


def file_batch_to_json(batch: FileBatch) -> str:
    """The record of a batch."""
    record: dict[str, Any] = {name: getattr(batch, name) for name in _PLAIN}
    record |= {
        "status": batch.status.value,
        "entered": {status.value: at for status, at in batch.entered.items()},
        "counts": [batch.counts.total, batch.counts.completed, batch.counts.failed],
        "usage": [
            batch.usage.prompt_tokens,
            batch.usage.completion_tokens,
            batch.usage.cached_tokens,
        ],
        "faults": [asdict(fault) for fault in batch.faults],
        "read_to": list(batch.read_to),
        "open_lines": list(chain.from_iterable(batch.open_lines)),
        "output_parts": list(batch.output_parts),
        "error_parts": list(batch.error_parts),
        "metadata": None if batch.metadata is None else dict(batch.metadata),
        "caller": principal_to_json(batch.caller),
    }
    return json.dumps(record, separators=(",", ":"))


def file_batch_from_json(text: str) -> FileBatch:
    """The batch of a record that `file_batch_to_json` wrote."""
    record = json.loads(text)
    numbers = record["open_lines"]
    return FileBatch(
        **{name: record[name] for name in _PLAIN if name != "id"},
        id=FileBatchId(record["id"]),
        caller=_caller(record),
        metadata=record["metadata"],
        status=FileBatchStatus(record["status"]),
        entered={FileBatchStatus(status): at for status, at in record["entered"].items()},
        counts=Counts(*record["counts"]),
        usage=Usage(*record["usage"]),
        faults=tuple(LineFault(**fault) for fault in record["faults"]),
        read_to=Cursor(*record["read_to"]),
        open_lines=tuple(map(OpenLine, numbers[::2], numbers[1::2])),
        output_parts=tuple(record["output_parts"]),
        error_parts=tuple(record["error_parts"]),
    )


def _caller(record: dict[str, Any]) -> Principal:
    """Whom it is for; of batches made before callers were told apart, only the tenant is known."""
    if "caller" in record:
        return principal_from_json(record["caller"])
    return replace(ANYONE, tenant=record["tenant"])


_PLAIN = (
    "id",
    "endpoint",
    "input_file_id",
    "input_key",
    "completion_window",
    "window_s",
    "created_at",
    "output_expires_after_s",
    "model",
    "input_bytes",
    "output_file_id",
    "error_file_id",
    "advanced_at",
    "progressed_at",
    "revision",
)
"""The fields that JSON takes as they are."""
