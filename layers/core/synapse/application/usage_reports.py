"""What a tenant has used: the sums of its requests, as they are asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from synapse.domain.access import DEFAULT_TENANT, Principal, Scope
from synapse.domain.errors import Forbidden, InvalidRequest
from synapse.domain.usage import Grouping, Used, day_of, grouped
from synapse.ports import Clock, UsageStore

MAX_DAYS = 366
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Whose usage is asked for, and of which days (both included, UTC; None: this month so far).

    `tenant` is the caller's own unless one is named.
    """

    first_day: str | None = None
    last_day: str | None = None
    group_by: Grouping = Grouping.DAY
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Sums by key, model or day, in their order, and of all together."""

    tenant: str
    first_day: str
    last_day: str
    group_by: Grouping
    groups: Mapping[str, Used]

    @property
    def total(self) -> Used:
        """Of all of them."""
        return sum(self.groups.values(), Used())


@dataclass(frozen=True, slots=True)
class UsageReports:
    """The use case behind `GET /v1/usage`."""

    store: UsageStore
    clock: Clock

    async def report(self, caller: Principal, query: UsageQuery) -> UsageReport:
        """What was used.

        Raises:
            InvalidRequest: the days are none, or too many.
            Forbidden: it is another tenant's, and the caller is no admin of the default one.
            Unavailable: it could not be read.
        """
        tenant = query.tenant or caller.tenant
        is_operator = caller.tenant == DEFAULT_TENANT and Scope.ADMIN in caller.scopes
        if tenant != caller.tenant and not is_operator:
            raise Forbidden(f"only an admin of the tenant {DEFAULT_TENANT!r} sees others' usage")
        first_day, last_day = self._days(query)
        rows = await self.store.used(tenant, first_day, last_day)
        groups = grouped(rows, query.group_by)
        return UsageReport(tenant, first_day, last_day, query.group_by, groups)

    def _days(self, query: UsageQuery) -> tuple[str, str]:
        today = day_of(self.clock())
        last = _day("to", query.last_day or today)
        first = _day("from", query.first_day) if query.first_day else last.replace(day=1)
        if first > last:
            raise InvalidRequest(f"from: {first} is later than to, {last}", param="from")
        if last - first >= timedelta(days=MAX_DAYS):
            raise InvalidRequest(f"from: at most {MAX_DAYS} days before to", param="from")
        return first.isoformat(), last.isoformat()


def _day(name: str, text: str) -> date:
    try:
        if DAY.fullmatch(text) is None:
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"{name}: must be a day, as 2026-11-21", param=name) from None
