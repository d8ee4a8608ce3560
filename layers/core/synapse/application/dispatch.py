"""Turn queue messages into batches and hand them to the batcher."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from synapse.application.routing import TYPICAL_OUTPUT_TOKENS
from synapse.domain.batching import JobMessage, plan_batches
from synapse.domain.errors import Unavailable
from synapse.domain.job import Failure, JobState
from synapse.domain.model import ModelSpec, Task
from synapse.domain.routing import Decision, Need
from synapse.ports import BatchOrder, BatchStarter, Clock, JobStore, Registry, Telemetry

Decide = Callable[[ModelSpec, Need], Awaitable[Decision]]
"""Which pools a need is to be tried in. Raises Unavailable if it cannot be found out."""


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Plans what was received and starts it."""

    store: JobStore
    registry: Registry
    decide: Decide
    starter: BatchStarter
    telemetry: Telemetry
    clock: Clock
    new_id: Callable[[], str]

    async def dispatch(
        self, messages: Sequence[JobMessage], decision: Decision | None = None
    ) -> None:
        """Plan and start all messages; return once the batcher has them.

        Raises:
            Unavailable: not all were started; deliver the messages again (jobs run once anyway).
        """
        orders = await self.plan(messages, decision)
        if orders:
            await self.starter.start(orders)

    async def plan(
        self, messages: Sequence[JobMessage], decision: Decision | None = None
    ) -> list[BatchOrder]:
        """The orders that `dispatch` would start; ends jobs whose model was withdrawn.

        Where no decision is given, each batch has its own.

        Raises:
            Unavailable: a model has no pool, or it could not be found out.
        """
        specs = await self._specs(messages)
        known = {message.job_id: message for message in messages if message.model in specs}
        batches = plan_batches(known.values(), lambda model: specs[model].batch, self.new_id)
        orders = []
        for batch in batches:
            decided, spec = decision, specs[batch.model]
            if decided is None:
                need = need_of_jobs(spec, [known[job] for job in batch.job_ids], self.clock())
                decided = await self.decide(spec, need)
            if not decided.pools:
                raise Unavailable(f"no pool serves model {spec.name!r}")
            orders.append(BatchOrder(replace(batch, fallback=decided.fallback), decided.pools))
        return orders

    async def _specs(self, messages: Sequence[JobMessage]) -> dict[str, ModelSpec]:
        specs: dict[str, ModelSpec] = {}
        for message in messages:
            if message.model in specs:
                continue
            spec = await self.registry.model(message.model)
            if spec is not None:
                specs[message.model] = spec
            else:
                await self._withdrawn(message)
        return specs

    async def _withdrawn(self, message: JobMessage) -> None:
        failure = Failure("model_not_found", f"model {message.model!r} is no longer served")
        job = await self.store.close(message.job_id, JobState.FAILED, failure, self.clock())
        if job is not None:
            self.telemetry.ended(job)


def need_of_jobs(spec: ModelSpec, messages: Sequence[JobMessage], now: float) -> Need:
    """What jobs of one tier need that travel together: each a slot, by the first deadline.

    Messages tell prompt and output as one number, in which the output is the most there can be.
    """
    generates = spec.task is Task.GENERATE
    tokens = max(message.tokens for message in messages)
    prompt_tokens = max(1, tokens - spec.max_output_tokens)
    return Need(
        messages[0].sla,
        len(messages),
        prompt_tokens,
        min(tokens - prompt_tokens, TYPICAL_OUTPUT_TOKENS) if generates else 0,
        min(message.deadline_at for message in messages) - now,
        first_token_only=generates,
        requires=frozenset().union(*(message.requires for message in messages)),
    )
