"""A line of waiting jobs in which each tenant has its own: theirs by age, the tenants by turns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from synapse.domain.batching import JobMessage
from synapse.domain.fair_share import Turns


class Line:
    """What waits at one priority. A job costs its tenant as many tokens as it may take."""

    def __init__(self) -> None:
        self._of_tenant: dict[str, OrderedDict[str, JobMessage]] = {}
        self._turns = Turns()
        self._waiting = 0
        self.items = 0
        """The slots that all of them take at an engine."""

    def __len__(self) -> int:
        return self._waiting

    def add(self, message: JobMessage) -> None:
        """Put a job at the end of its tenant's; one that waits already keeps its place."""
        mine = self._of_tenant.get(message.tenant)
        if mine is None:
            mine = self._of_tenant[message.tenant] = OrderedDict()
            self._turns.join(message.tenant)
        former = mine.get(message.job_id)
        self._waiting += former is None
        self.items += message.items - (0 if former is None else former.items)
        mine[message.job_id] = message

    def put_back(self, message: JobMessage) -> None:
        """Put a job that was popped at the head of its tenant's again, at no cost to it."""
        self.add(message)
        self._of_tenant[message.tenant].move_to_end(message.job_id, last=False)
        self._turns.charge(message.tenant, -_cost(message))

    def pop(self) -> JobMessage:
        """Take out the oldest of the tenant whose turn it is; there must be one."""
        tenant = self._turns.next()
        mine = self._of_tenant[tenant]
        _, message = mine.popitem(last=False)
        self._waiting -= 1
        self.items -= message.items
        self._turns.charge(tenant, _cost(message))
        if not mine:
            self._leave(tenant)
        return message

    def remove(self, message: JobMessage) -> None:
        """Take out a job that waits here."""
        mine = self._of_tenant[message.tenant]
        self.items -= mine.pop(message.job_id).items
        self._waiting -= 1
        if not mine:
            self._leave(message.tenant)

    def heads(self) -> Iterator[JobMessage]:
        """Each tenant's first."""
        return (next(iter(mine.values())) for mine in self._of_tenant.values())

    def _leave(self, tenant: str) -> None:
        del self._of_tenant[tenant]
        self._turns.leave(tenant)


def _cost(message: JobMessage) -> int:
    return max(1, message.all_tokens)
