"""Orders as they reach the state machine, read back."""

from __future__ import annotations

from typing import Any

from synapse.adapters.codec import runner_order_from_event
from synapse.domain.pool import Pool
from synapse.ports import BatchOrder


def order_of(event: dict[str, Any]) -> BatchOrder:
    """That of an `order_to_event`: name and runner of its pools."""
    pools = tuple(Pool(p["name"], "", "", runner=p["runnerArn"]) for p in event["pools"])
    batch, _ = runner_order_from_event({**event, "pool": pools[0].name})
    return BatchOrder(batch, pools)
