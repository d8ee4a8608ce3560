"""Endpoints and deliveries as JSON: what the stores of both targets keep of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from synapse.domain.delivery import Delivery, DeliveryState
from synapse.domain.webhook import Endpoint, EventType, Secret


def endpoint_to_json(endpoint: Endpoint) -> str:
    """All of an endpoint, its secrets too."""
    return _json({**asdict(endpoint), "events": sorted(endpoint.events)})


def endpoint_from_json(text: str) -> Endpoint:
    """The endpoint that `endpoint_to_json` wrote."""
    record: dict[str, Any] = json.loads(text)
    events = frozenset(EventType(each) for each in record["events"])
    secrets = tuple(Secret(**each) for each in record["secrets"])
    return Endpoint(**{**record, "events": events, "secrets": secrets})


def delivery_to_json(delivery: Delivery) -> str:
    """All of a delivery; what is not set is left out."""
    return _json({name: value for name, value in asdict(delivery).items() if value is not None})


def delivery_from_json(text: str) -> Delivery:
    """The delivery that `delivery_to_json` wrote."""
    record: dict[str, Any] = json.loads(text)
    kind, state = EventType(record["type"]), DeliveryState(record["state"])
    return Delivery(**{"due_at": None, **record, "type": kind, "state": state})


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))
