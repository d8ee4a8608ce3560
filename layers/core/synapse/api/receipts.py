"""Receipts as callers are told of them: in bodies, and in headers."""

from __future__ import annotations

from collections.abc import Sequence

from synapse.api.wire import WireModel
from synapse.domain.receipt import Cost, Receipt, combined

PREFIX = "x-synapse-"


class CostBody(WireModel):
    """US dollars: for the slots it held, for keeping workers up, and both."""

    active_usd: float
    warm_usd: float
    total_usd: float


class ReceiptBody(WireModel):
    """Where the time went, in milliseconds, who served it, and what it cost.

    For `cold_ms` of `queue_ms` no worker was up. `batch_size` requests were given to the worker
    together. There is no pool where nothing was computed; no worker where the pool's one has no
    name, or several had a part in it.
    """

    queue_ms: float
    cold_ms: float
    inference_ms: float
    batch_size: int
    pool: str | None
    accelerator: str | None
    worker: str | None
    version: str
    prompt_tokens: int
    completion_tokens: int
    cost: CostBody


def receipt_body(receipt: Receipt) -> ReceiptBody:
    """The receipt in a body."""
    return ReceiptBody(
        queue_ms=round(receipt.queue_ms, 3),
        cold_ms=round(receipt.cold_ms, 3),
        inference_ms=round(receipt.inference_ms, 3),
        batch_size=receipt.batch_size,
        pool=receipt.pool or None,
        accelerator=receipt.accelerator or None,
        worker=receipt.worker or None,
        version=receipt.version,
        prompt_tokens=receipt.usage.prompt_tokens,
        completion_tokens=receipt.usage.completion_tokens,
        cost=cost_body(receipt.cost),
    )


def cost_body(cost: Cost) -> CostBody:
    """The cost in a body."""
    return CostBody(
        active_usd=round(cost.active_usd, 12),
        warm_usd=round(cost.warm_usd, 12),
        total_usd=round(cost.total_usd, 12),
    )


def receipt_headers(receipts: Sequence[Receipt]) -> dict[str, str]:
    """The receipt of a whole answer, in plain headers."""
    if not receipts:
        return {}
    receipt = combined(receipts)
    cost_usd = f"{receipt.cost.total_usd:.12f}"
    return {
        **beginning_headers(receipts),
        f"{PREFIX}queue-ms": _ms(receipt.queue_ms),
        f"{PREFIX}cold-ms": _ms(receipt.cold_ms),
        f"{PREFIX}inference-ms": _ms(receipt.inference_ms),
        f"{PREFIX}batch-size": str(receipt.batch_size),
        f"{PREFIX}cost-usd": cost_usd,
    }


def beginning_headers(receipts: Sequence[Receipt]) -> dict[str, str]:
    """What of it is known before an answer is whole; of those not begun yet, just the version."""
    if not receipts:
        return {}
    receipt = combined(receipts)
    headers = {f"{PREFIX}version": receipt.version}
    if any(each.pool for each in receipts):
        headers[f"{PREFIX}queue-ms"] = _ms(receipt.queue_ms)
    if receipt.pool:
        headers[f"{PREFIX}pool"] = receipt.pool
    if receipt.worker:
        headers[f"{PREFIX}worker"] = receipt.worker
    return headers


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3f}"
