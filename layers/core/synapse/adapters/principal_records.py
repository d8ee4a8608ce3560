"""A principal as JSON: what an authorizer hands on, and what a batch remembers of its maker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

from synapse.domain.access import NO_LIMITS, Limits, Principal, Scope
from synapse.domain.job import SlaTier


class HasRights(Protocol):
    """Whatever has scopes, and may be bound to models and tiers."""

    @property
    def scopes(self) -> frozenset[Scope]:
        """What it may do."""
        ...

    @property
    def models(self) -> frozenset[str] | None:
        """Of which models; None for all."""
        ...

    @property
    def tiers(self) -> frozenset[SlaTier] | None:
        """In which tiers; None for all."""
        ...


def principal_to_json(principal: Principal) -> str:
    """The principal as a JSON text; what is not limited is left out."""
    record: dict[str, Any] = {
        "tenant": principal.tenant,
        "account": principal.account,
        **rights_record(principal),
        "limits": limits_record(principal.limits),
        "tenant_limits": limits_record(principal.tenant_limits),
    }
    return json.dumps({name: value for name, value in record.items() if value not in ({}, None)})


def principal_from_json(text: str) -> Principal:
    """The principal that `principal_to_json` wrote."""
    record: dict[str, Any] = json.loads(text)
    return Principal(
        tenant=record["tenant"],
        account=record["account"],
        **rights_from(record),
        limits=limits_from(record.get("limits")),
        tenant_limits=limits_from(record.get("tenant_limits")),
    )


def rights_record(holder: HasRights) -> dict[str, list[str] | None]:
    """What a caller, a key or a user may do, by the names of the fields; None is all there are."""
    return {
        "scopes": sorted(holder.scopes),
        "models": None if holder.models is None else sorted(holder.models),
        "tiers": None if holder.tiers is None else sorted(holder.tiers),
    }


def rights_from(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that `rights_record` told; models or tiers that were left out are all."""
    models, tiers = record.get("models"), record.get("tiers")
    return {
        "scopes": frozenset(Scope(each) for each in record["scopes"]),
        "models": None if models is None else frozenset(models),
        "tiers": None if tiers is None else frozenset(SlaTier(each) for each in tiers),
    }


def limits_from(record: dict[str, Any] | None) -> Limits:
    """The limits of a record by their names; those left out do not limit."""
    return Limits(**record) if record else NO_LIMITS


def limits_record(limits: Limits) -> dict[str, Any]:
    """The limits by their names; what does not limit is left out."""
    return {name: value for name, value in asdict(limits).items() if value is not None}
