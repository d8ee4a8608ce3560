"""Keys and tenants as JSON: what the stores of both targets keep of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from synapse.adapters.principal_records import (
    limits_from,
    limits_record,
    rights_from,
    rights_record,
)
from synapse.domain.access import Tenant
from synapse.domain.api_key import ApiKey


def key_to_json(key: ApiKey) -> str:
    """All that is kept of a key; what is not set is left out."""
    record = {
        **asdict(key),
        **rights_record(key),
        "limits": limits_record(key.limits) or None,
    }
    return _json({name: value for name, value in record.items() if value is not None})


def key_from_json(text: str) -> ApiKey:
    """The key that `key_to_json` wrote."""
    record: dict[str, Any] = json.loads(text)
    limits = limits_from(record.get("limits"))
    return ApiKey(**{**record, **rights_from(record), "limits": limits})


def tenant_to_json(tenant: Tenant) -> str:
    """All that is kept of a tenant."""
    return _json({"name": tenant.name, "limits": limits_record(tenant.limits)})


def tenant_from_json(text: str) -> Tenant:
    """The tenant that `tenant_to_json` wrote."""
    record: dict[str, Any] = json.loads(text)
    return Tenant(record["name"], limits_from(record["limits"]))


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))
