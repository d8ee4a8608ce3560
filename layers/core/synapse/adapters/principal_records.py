"""A principal as JSON: what an authorizer hands on, and what a batch remembers of its maker."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from synapse.domain.access import NO_LIMITS, Limits, Principal, Scope
from synapse.domain.job import SlaTier


def principal_to_json(principal: Principal) -> str:
    """The principal as a JSON text; what is not limited is left out."""
    record: dict[str, Any] = {
        "tenant": principal.tenant,
        "account": principal.account,
        "scopes": sorted(principal.scopes),
        "limits": limits_record(principal.limits),
        "tenant_limits": limits_record(principal.tenant_limits),
    }
    if principal.models is not None:
        record["models"] = sorted(principal.models)
    if principal.tiers is not None:
        record["tiers"] = sorted(principal.tiers)
    return json.dumps({name: value for name, value in record.items() if value != {}})


def principal_from_json(text: str) -> Principal:
    """The principal that `principal_to_json` wrote."""
    record: dict[str, Any] = json.loads(text)
    models, tiers = record.get("models"), record.get("tiers")
    return Principal(
        tenant=record["tenant"],
        account=record["account"],
        scopes=frozenset(Scope(each) for each in record["scopes"]),
        models=None if models is None else frozenset(models),
        tiers=None if tiers is None else frozenset(SlaTier(each) for each in tiers),
        limits=limits_from(record.get("limits")),
        tenant_limits=limits_from(record.get("tenant_limits")),
    )


def limits_from(record: dict[str, Any] | None) -> Limits:
    """The limits of a record by their names; those left out do not limit."""
    return Limits(**record) if record else NO_LIMITS


def limits_record(limits: Limits) -> dict[str, Any]:
    """The limits by their names; what does not limit is left out."""
    return {name: value for name, value in asdict(limits).items() if value is not None}
