"""Who calls, and what they may do.

A caller is known by an API key (`domain.api_key`) or a signed token; either way the request is
served for a `Principal`, which belongs to a tenant. Nobody reads another tenant's jobs or files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

from synapse.domain.errors import Forbidden
from synapse.domain.job import SlaTier

DEFAULT_TENANT = "default"

TENANT_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""As a tenant may be called: it becomes a part of keys in databases."""

MAX_MODELS_BYTES = 3072
"""The names of a caller's models, as JSON in JSON: so an authorizer tells API Gateway of them, in
an answer of 8 KiB (which AWS documents for WebSocket APIs, and for REST APIs nothing)."""

MAX_LIMIT = 10**12
"""The most that a limit may be: above that it limits nothing."""

REFUSED = "the API key or token is not valid, or not any more"
"""The same whatever is wrong with a credential; the audit log tells which."""


class Scope(StrEnum):
    """What a caller may do: each route asks for one."""

    INFERENCE = "inference"
    """Submit jobs and read one's own; the routes that answer on the spot; the models there are."""

    BATCHES = "batches"
    """Files, uploads and batches."""

    USAGE = "usage"
    """Read what the tenant has used."""

    ADMIN = "admin"
    """Pools, workers and routing decisions; keys, tenants and users; the metrics of all."""


ALL_SCOPES = frozenset(Scope)
ORDINARY_SCOPES = frozenset({Scope.INFERENCE, Scope.BATCHES, Scope.USAGE})


def are_too_many(models: Collection[str] | None) -> bool:
    """Whether a caller may not have so many models by name, or such long names."""
    if models is None:
        return False
    return len(json.dumps(json.dumps(sorted(models)))) > MAX_MODELS_BYTES


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that an account, or a tenant with all its accounts, may use; None is no limit.

    Minutes and months are the calendar's, UTC. A job counts as concurrent until it has ended.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_jobs: int | None = None
    max_tokens_per_request: int | None = None
    monthly_usd: float | None = None


NO_LIMITS = Limits()


def is_tenant_name(text: str) -> bool:
    """Whether a tenant may be called that."""
    return re.fullmatch(TENANT_NAME, text) is not None


@dataclass(frozen=True, slots=True)
class Tenant:
    """An organisation or team: what its accounts make belongs to it, and counts together."""

    name: str
    limits: Limits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a request is served for.

    `account` is what usage is counted by: a key's id, or a token's subject. `models` and `tiers`
    are those it may ask for, None for all. `limits` are the account's own, `tenant_limits` those
    it shares with the other accounts of its tenant.
    """

    tenant: str = DEFAULT_TENANT
    account: str = ""
    scopes: frozenset[Scope] = ALL_SCOPES
    models: frozenset[str] | None = None
    tiers: frozenset[SlaTier] | None = None
    limits: Limits = field(default=NO_LIMITS)
    tenant_limits: Limits = field(default=NO_LIMITS)

    def require(self, scope: Scope) -> None:
        """Refuse what the caller may not do.

        Raises:
            Forbidden: the scope is not among the caller's.
        """
        if scope not in self.scopes:
            raise Forbidden(
                f"this needs the scope {scope.value!r}, which the key or token does not have; "
                "ask for one that has it"
            )

    def sees(self, model: str) -> bool:
        """Whether the model is there for this caller."""
        return self.models is None or model in self.models

    def tier_or(self, default: SlaTier) -> SlaTier:
        """The tier of a request that names none: `default`, or the nearest that the caller has.

        Of two as near it is the better one; who has none is told so by `require_tier`.
        """
        if not self.tiers:
            return default
        return min(self.tiers, key=lambda tier: (abs(tier.rank - default.rank), tier.rank))

    def require_tier(self, tier: SlaTier, of: str = "") -> None:
        """Refuse a tier that the caller may not ask for.

        `of` is what has that tier without being asked, if that is how it comes.

        Raises:
            Forbidden: it is not among the caller's.
        """
        if self.tiers is not None and tier not in self.tiers:
            named = ", ".join(sorted(each.value for each in self.tiers)) or "none"
            wanted = f"the SLA tier {tier.value!r}"
            wanted = f"{of} run in {wanted}, which" if of else wanted
            raise Forbidden(
                f"{wanted} is not among those of this key or token: {named}; "
                "ask for one that has it",
                code="tier_not_allowed",
            )


ANYONE = Principal()
"""The caller where nobody is asked who they are: a server that only its own machine can reach."""
