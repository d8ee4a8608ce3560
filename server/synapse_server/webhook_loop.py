"""Tells of what has ended on one machine, and delivers it, as long as the server runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from synapse.adapters.local.webhooks import SqliteDeliveryStore, SqliteOutbox
from synapse.application.webhooks import Announcer, Deliverer
from synapse.domain.delivery import Delivery, DeliveryState, Place
from synapse.domain.delivery_room import Room
from synapse.domain.errors import Unavailable

logger = logging.getLogger(__name__)

ANNOUNCED_AT_ONCE = 200
FAILING_PLACES = 1000
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
    """Delivers side by side, tenants in turn.

    Of a tenant few go to one host, and one at a time to a host that does not take it. An attempt
    that is cut off by the end of the process is made again by the next.
    """

    outbox: SqliteOutbox
    deliveries: SqliteDeliveryStore
    announcer: Announcer
    deliverer: Deliverer
    queue: LocalDeliveryQueue
    _under_way: dict[str, Delivery] = field(default_factory=dict)
    _failing: set[Place] = field(default_factory=set)

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
        room = Room(self._under_way.values(), self._failing)
        return await self.deliveries.due(room) if room.left > 0 else []

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
                self._failing.discard(delivery.place)
            else:
                if len(self._failing) >= FAILING_PLACES:
                    self._failing.clear()
                self._failing.add(delivery.place)
        finally:
            del self._under_way[delivery.id]
            self.queue.changed.set()
