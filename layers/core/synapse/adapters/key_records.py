"""Keys and tenants as JSON: what the stores of both targets keep of them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from synapse.adapters.principal_records import limits_from, limits_record
from synapse.domain.access import Scope, Tenant
from synapse.domain.api_key import ApiKey
from synapse.domain.job import SlaTier


def key_to_json(key: ApiKey) -> str:
    """All that is kept of a key; what is not set is left out."""
    record = {
        **asdict(key),
        "scopes": sorted(key.scopes),
        "models": None if key.models is None else sorted(key.models),
        "tiers": None if key.tiers is None else sorted(key.tiers),
        "limits": limits_record(key.limits) or None,
    }
    return _json({name: value for name, value in record.items() if value is not None})


def key_from_json(text: str) -> ApiKey:
    """The key that `key_to_json` wrote."""
    record: dict[str, Any] = json.loads(text)
    models, tiers = record.get("models"), record.get("tiers")
    return ApiKey(
        **{
            **record,
            "scopes": frozenset(Scope(each) for each in record["scopes"]),
            "models": None if models is None else frozenset(models),
            "tiers": None if tiers is None else frozenset(SlaTier(each) for each in tiers),
            "limits": limits_from(record.get("limits")),
        }
    )


def tenant_to_json(tenant: Tenant) -> str:
    """All that is kept of a tenant."""
    return _json({"name": tenant.name, "limits": limits_record(tenant.limits)})


def tenant_from_json(text: str) -> Tenant:
    """The tenant that `tenant_to_json` wrote."""
    record: dict[str, Any] = json.loads(text)
    return Tenant(record["name"], limits_from(record["limits"]))


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))
