"""Keys and tenants on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from synapse.api.schemas import Request, TierName
from synapse.api.wire import WireModel
from synapse.domain.access import MAX_LIMIT, TENANT_NAME
from synapse.domain.api_key import (
    GRACE_S,
    MAX_GRACE_S,
    MAX_LIFE_S,
    MAX_NAME_LENGTH,
    is_key_name,
)

ScopeName = Literal["inference", "batches", "usage", "admin"]
TenantName = Annotated[str, StringConstraints(pattern=f"^{TENANT_NAME}$")]


def _printable(value: str) -> str:
    """Refuse what would steer the terminal of who lists the keys: control characters, line ends."""
    if not is_key_name(value):
        raise PydanticCustomError("printable", "must be of characters that can be shown in a line")
    return value


Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH),
    AfterValidator(_printable),
]


class LimitsBody(Request):
    """The most that may be used; what is left out or null is not limited."""

    requests_per_minute: int | None = Field(default=None, ge=1, le=MAX_LIMIT)
    tokens_per_minute: int | None = Field(default=None, ge=1, le=MAX_LIMIT)
    concurrent_jobs: int | None = Field(default=None, ge=1, le=MAX_LIMIT)
    max_tokens_per_request: int | None = Field(default=None, ge=1, le=MAX_LIMIT)
    monthly_usd: float | None = Field(
        default=None, gt=0, le=MAX_LIMIT, allow_inf_nan=False, description="By calendar month, UTC."
    )


class KeyRequest(Request):
    """A key that is to be made. It never gets more than the one that asks for it has."""

    name: Name = Field(description="What tells you whose it is.")
    tenant: TenantName | None = Field(
        default=None, description="Your own unless you are an admin of `default`."
    )
    scopes: Annotated[list[ScopeName], Field(min_length=1)] = Field(
        default=["inference", "batches", "usage"]
    )
    models: Annotated[list[Name], Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="The only ones it may use; all of yours unless given."
    )
    tiers: Annotated[list[TierName], Field(min_length=1)] | None = Field(
        default=None, description="The only ones it may ask for; all of yours unless given."
    )
    limits: LimitsBody = Field(default_factory=LimitsBody)
    expires_in_s: float | None = Field(default=None, gt=0, le=MAX_LIFE_S, allow_inf_nan=False)


class RotationRequest(Request):
    """How a key's secret is to be changed."""

    grace_s: float = Field(
        default=GRACE_S,
        ge=0,
        le=MAX_GRACE_S,
        allow_inf_nan=False,
        description="For how long the secret it had is good yet; 0: not any more.",
    )


class TenantRequest(Request):
    """What the accounts of a tenant may use together."""

    limits: LimitsBody


class KeyBody(WireModel):
    """A key without its secret. Times are Unix seconds."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    tenant: str
    status: Literal["active", "expired", "revoked"]
    scopes: list[str]
    models: list[str] | None
    tiers: list[str] | None
    limits: LimitsBody
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    jobs_cancelled_at: int | None = Field(
        description="From then on nothing more is run of what was begun with it."
    )
    rotated_at: int | None
    previous_until: int | None = Field(description="Until then the secret before is good too.")


class NewKeyBody(KeyBody):
    """A key with its secret: the only answer that ever has it."""

    key: str = Field(description="Keep it: it is not shown again.")


class KeyList(WireModel):
    """The keys of a tenant, the oldest first."""

    object: Literal["list"] = "list"
    data: list[KeyBody]


class TenantBody(WireModel):
    """A tenant."""

    name: str
    object: Literal["tenant"] = "tenant"
    limits: LimitsBody


class TenantList(WireModel):
    """The tenants that were described, by name."""

    object: Literal["list"] = "list"
    data: list[TenantBody]
