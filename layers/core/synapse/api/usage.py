"""`GET /v1/usage`: what the tenant has used, as JSON in pages or as CSV."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from itertools import islice
from typing import Annotated, Literal

from aws_lambda_powertools.event_handler.openapi.params import Header, Query

from synapse.api.key_schemas import TenantName
from synapse.api.resolver import Api, Reply
from synapse.api.responses import errors
from synapse.api.services import Services
from synapse.api.wire import WireModel
from synapse.application.usage_reports import UsageQuery, UsageReport
from synapse.domain.access import Principal, Scope
from synapse.domain.usage import PICODOLLARS, Grouping, Used

CSV = "text/csv; charset=utf-8; header=present"
COLUMNS = (
    "requests",
    "errors",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "active_usd",
    "warm_usd",
    "cost_usd",
)
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a cell begins with that spreadsheets compute (OWASP, CSV injection)."""


class UsageSums(WireModel):
    """Requests that have ended, their tokens, and what they cost in US dollars.

    `active_usd` for the slots they held, `warm_usd` for keeping workers up; `cost_usd` is both.
    """

    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    active_usd: float
    warm_usd: float
    cost_usd: float


class UsageRow(UsageSums):
    """The sums of one key (its id, or a token's subject), model or day."""

    name: str


class UsageList(WireModel):
    """Some of the sums; `total` is of all, also of those on other pages."""

    object: Literal["list"] = "list"
    tenant: str
    first_day: str
    last_day: str
    group_by: Literal["key", "model", "day"]
    data: list[UsageRow]
    total: UsageSums
    last_name: str | None
    has_more: bool


Day = Annotated[str | None, Query(alias="from", description="The first day, as 2026-11-01.")]
LastDay = Annotated[str | None, Query(alias="to", description="The last day, included.")]
By = Annotated[Literal["key", "model", "day"], Query(description="What is told apart.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Rows a page at most.")]
After = Annotated[str | None, Query(description="Go on after the row of this name.")]
OfTenant = Annotated[
    TenantName | None, Query(description="Another tenant's: for admins of `default`.")
]
Accept = Annotated[str | None, Header(alias="Accept", include_in_schema=False)]


def add_usage_route(api: Api, services: Services) -> None:
    """Register the route on `api`."""

    @api.handles(
        "GET",
        "/v1/usage",
        scope=Scope.USAGE,
        summary="What was used, by key, model or day",
        tags=["usage"],
        responses={
            200: {
                "description": "The sums",
                "content": {"application/json": {"model": UsageList}, "text/csv": {}},
            },
            **errors(400, 403, 503),
        },
    )
    async def usage(
        caller: Principal,
        first_day: Day = None,
        last_day: LastDay = None,
        group_by: By = "day",
        as_format: Annotated[Literal["json", "csv"] | None, Query(alias="format")] = None,
        limit: Limit = 1000,
        after: After = None,
        tenant: OfTenant = None,
        accept: Accept = None,
    ) -> Reply:
        query = UsageQuery(first_day, last_day, Grouping(group_by), tenant)
        report = await services.usage.report(caller, query)
        wants_csv = as_format == "csv" or (as_format is None and "text/csv" in (accept or ""))
        if wants_csv:
            name = f"usage-{report.first_day}-{report.last_day}.csv"
            headers = {"Content-Disposition": f'attachment; filename="{name}"'}
            return Reply(csv_of(report), content_type=CSV, headers=headers)
        return Reply(_page(report, limit, after))


def csv_of(report: UsageReport) -> str:
    """The report as CSV (RFC 4180), with a header; amounts exact to the picodollar.

    A name that a spreadsheet would take for a formula is preceded by an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([report.group_by.value, *COLUMNS])
    for name, used in report.groups.items():
        writer.writerow([_cell(name), *_amounts(used)])
    return text.getvalue()


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


def _amounts(used: Used) -> list[str]:
    costs = (used.active, used.warm, used.active + used.warm)
    counts = (
        used.requests,
        used.errors,
        used.prompt_tokens,
        used.completion_tokens,
        used.cached_tokens,
    )
    return [*map(str, counts), *(f"{Decimal(cost) / PICODOLLARS:.12f}" for cost in costs)]


def _page(report: UsageReport, limit: int, after: str | None) -> UsageList:
    later = ((name, used) for name, used in report.groups.items() if after is None or name > after)
    found = list(islice(later, limit + 1))
    rows = [UsageRow(name=name, **_sums(used)) for name, used in found[:limit]]
    return UsageList(
        tenant=report.tenant,
        first_day=report.first_day,
        last_day=report.last_day,
        group_by=report.group_by.value,
        data=rows,
        total=UsageSums(**_sums(report.total)),
        last_name=rows[-1].name if rows else None,
        has_more=len(found) > limit,
    )


def _sums(used: Used) -> dict[str, int | float]:
    return {
        "requests": used.requests,
        "errors": used.errors,
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "cached_tokens": used.cached_tokens,
        "active_usd": used.active / PICODOLLARS,
        "warm_usd": used.warm / PICODOLLARS,
        "cost_usd": (used.active + used.warm) / PICODOLLARS,
    }
