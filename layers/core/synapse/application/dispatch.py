"""Turn queue messages into batches and hand them to the batcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from synapse.domain.batching import BatchPolicy, JobMessage, plan_batches
from synapse.domain.errors import Unavailable
from synapse.domain.job import Failure, JobState
from synapse.ports import BatchOrder, BatchStarter, Clock, JobStore, Registry, Telemetry


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Plans what was received and starts it."""

    store: JobStore
    registry: Registry
    starter: BatchStarter
    telemetry: Telemetry
    clock: Clock
    new_id: Callable[[], str]

    async def dispatch(self, messages: Sequence[JobMessage]) -> None:
        """Plan and start all messages; return once the batcher has them.

        Raises:
            Unavailable: not all were started; deliver the messages again (jobs run once anyway).
        """
        orders = await self.plan(messages)
        if orders:
            await self.starter.start(orders)

    async def plan(self, messages: Sequence[JobMessage]) -> list[BatchOrder]:
        """The orders that `dispatch` would start; ends jobs whose model was withdrawn.

        Raises:
            Unavailable: a model has no pool.
        """
        policies = await self._policies(messages)
        known = [message for message in messages if message.model in policies]
        batches = plan_batches(known, policies.__getitem__, self.new_id)
        orders = [
            BatchOrder(batch, tuple(await self.registry.pools(batch.model))) for batch in batches
        ]
        homeless = next((order for order in orders if not order.pools), None)
        if homeless is not None:
            raise Unavailable(f"no pool serves model {homeless.batch.model!r}")
        return orders

    async def _policies(self, messages: Sequence[JobMessage]) -> dict[str, BatchPolicy]:
        policies: dict[str, BatchPolicy] = {}
        for message in messages:
            spec = await self.registry.model(message.model)
            if spec is not None:
                policies[message.model] = spec.batch
            else:
                await self._withdrawn(message)
        return policies

    async def _withdrawn(self, message: JobMessage) -> None:
        failure = Failure("model_not_found", f"model {message.model!r} is no longer served")
        job = await self.store.close(message.job_id, JobState.FAILED, failure, self.clock())
        if job is not None:
            self.telemetry.ended(job)
