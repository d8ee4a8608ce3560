"""Tells of what has ended on one machine, and delivers it, as long as the server runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from synapse.adapters.local.webhooks import SqliteDeliveryStore, SqliteOutbox
from synapse.application.webhooks import Announcer, Deliverer
from synapse.domain.delivery import Delivery, DeliveryState
from synapse.domain.errors import Unavailable

logger = logging.getLogger(__name__)

ANNOUNCED_AT_ONCE = 200
IN_FLIGHT = 32
PER_HOST = 4
FAILING_HOSTS = 1000
"""That are remembered: those that are forgotten show themselves again."""

LOOK_EVERY_S = 0.5
"""At what has ended and what is due; what is in flight wakes the loop when it is done."""

PAUSE_S = 5.0
"""When the records cannot be reached."""


@dataclass(frozen=True, slots=True)
class LocalDeliveryQueue:
    """The DeliveryQueue of this target: deliveries are on the disk, and found there."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See the port."""
        self.changed.set()


@dataclass(slots=True)
class WebhookLoop:
    """Delivers side by side, few to one host, and one at a time to a host that does not take it.

    An attempt that is cut off by the end of the process is made again by the next.
    """

    outbox: SqliteOutbox
    deliveries: SqliteDeliveryStore
    announcer: Announcer
    deliverer: Deliverer
    queue: LocalDeliveryQueue
    _under_way: dict[str, Delivery] = field(default_factory=dict)
    _failing: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Go on until cancelled; what is in flight then ends with it."""
        async with asyncio.TaskGroup() as attempts:
            while True:
                self.queue.changed.clear()
                try:
                    await self._announce()
                    for delivery in await self._due():
                        self._under_way[delivery.id] = delivery
                        attempts.create_task(self._attempt(delivery))
                except Unavailable as error:
                    logger.warning("webhooks are held up: %s", error.message)
                    await asyncio.sleep(PAUSE_S)
                except Exception:
                    logger.exception("webhooks are held up")
                    await asyncio.sleep(PAUSE_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self.queue.changed.wait()

    async def _announce(self) -> None:
        while events := await self.outbox.untold(ANNOUNCED_AT_ONCE):
            await self.announcer.announce(events)
            await self.outbox.told(events)

    async def _due(self) -> Sequence[Delivery]:
        free = IN_FLIGHT - len(self._under_way)
        if free <= 0:
            return []
        busy = Counter(each.host for each in self._under_way.values())
        room = {host: PER_HOST - count for host, count in busy.items()}
        room |= {host: 1 - busy[host] for host in self._failing}
        return await self.deliveries.due(room, PER_HOST, free, list(self._under_way))

    async def _attempt(self, delivery: Delivery) -> None:
        try:
            after = await self.deliverer.attempt(delivery)
        except Unavailable as error:
            # It is still due: a moment later it is tried again.
            logger.warning("webhook not tried: %s", error.message)
            await asyncio.sleep(PAUSE_S)
        except Exception:
            logger.exception("webhook not tried", extra={"delivery": delivery.id})
            await asyncio.sleep(PAUSE_S)
        else:
            if after.state is DeliveryState.DELIVERED:
                self._failing.discard(delivery.host)
            else:
                if len(self._failing) >= FAILING_HOSTS:
                    self._failing.clear()
                self._failing.add(delivery.host)
        finally:
            del self._under_way[delivery.id]
            self.queue.changed.set()
