"""Turn queue messages into batches and hand them to the batcher."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from synapse.application.gathering import Gathering, Turn
from synapse.application.routing import TYPICAL_OUTPUT_TOKENS, Decide
from synapse.domain.batching import JobMessage, plan_batches
from synapse.domain.job import Failure, JobId, JobState
from synapse.domain.model import ModelSpec, Task
from synapse.domain.routing import Decision, Need
from synapse.ports import BatchOrder, BatchStarter, Clock, JobStore, Registry, Telemetry

logger = logging.getLogger(__name__)


class Plan(NamedTuple):
    """What messages come to: orders, and jobs whose model no pool serves. Others are gathered."""

    orders: list[BatchOrder]
    left: list[JobId]


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Plans what was received and starts it, or has it gathered where there is no room."""

    store: JobStore
    registry: Registry
    at_once: Callable[[], Decide]
    starter: BatchStarter
    telemetry: Telemetry
    clock: Clock
    new_id: Callable[[], str]
    gathering: Gathering | None = None

    async def dispatch(
        self,
        messages: Sequence[JobMessage],
        decision: Decision | None = None,
        *,
        were_gathered: bool = False,
    ) -> Sequence[JobId]:
        """Plan and start messages; return once the batcher has them.

        Those that `were_gathered` have been kept once, for want of room.
        Returns the jobs whose model no pool serves: deliver these again, one may be on its way.

        Raises:
            Unavailable: not all were started; deliver the messages again (jobs run once anyway).
        """
        turn = None
        if self.gathering is not None:
            turn = self.gathering.turn(self.clock(), were_gathered=were_gathered)
        plan = await self.plan(messages, decision, turn)
        if plan.orders:
            await self.starter.start(plan.orders)
        if turn is not None:
            await turn.close()
        return plan.left

    async def plan(
        self,
        messages: Sequence[JobMessage],
        decision: Decision | None = None,
        turn: Turn | None = None,
    ) -> Plan:
        """What `dispatch` would start; ends jobs whose model was withdrawn.

        Where no decision is given, each batch has its own, of what `at_once` sees.

        Raises:
            Unavailable: the pools of a model could not be found out.
        """
        specs = await self._specs(messages)
        known = {message.job_id: message for message in messages if message.model in specs}
        batches = plan_batches(known.values(), lambda model: specs[model].batch, self.new_id)
        plan, decide = Plan([], []), self.at_once()
        for batch in batches:
            decided, spec = decision, specs[batch.model]
            jobs = [known[job] for job in batch.job_ids]
            if decided is None:
                decided = await decide(spec, need_of_jobs(spec, jobs, self.clock()))
            if not decided.pools:
                logger.error("no pool serves a model", extra={"model": spec.name, "n": len(jobs)})
                plan.left.extend(batch.job_ids)
            elif turn is None or not await turn.keeps(spec, jobs, decided):
                batch = replace(batch, fallback=decided.fallback)
                plan.orders.append(BatchOrder(batch, decided.pools))
        return plan

    async def _specs(self, messages: Sequence[JobMessage]) -> dict[str, ModelSpec]:
        """The models that are served; the jobs of others are ended."""
        found = {name: await self.registry.model(name) for name in {m.model for m in messages}}
        specs = {name: spec for name, spec in found.items() if spec is not None}
        withdrawn = [message for message in messages if message.model not in specs]
        await asyncio.gather(*(self._withdrawn(message) for message in withdrawn))
        return specs

    async def _withdrawn(self, message: JobMessage) -> None:
        failure = Failure("model_not_found", f"model {message.model!r} is no longer served")
        job = await self.store.close(message.job_id, JobState.FAILED, failure, self.clock())
        if job is not None:
            self.telemetry.ended(job)


def need_of_jobs(spec: ModelSpec, messages: Sequence[JobMessage], now: float) -> Need:
    """What jobs of one tier need that travel together: a slot for each item, by the first deadline.

    Messages tell prompt and output as one number, in which the output is the most there can be.
    """
    generates = spec.task is Task.GENERATE
    tokens = max(message.tokens for message in messages)
    prompt_tokens = max(1, tokens - spec.max_output_tokens)
    return Need(
        messages[0].sla,
        sum(message.items for message in messages),
        prompt_tokens,
        min(tokens - prompt_tokens, TYPICAL_OUTPUT_TOKENS) if generates else 0,
        min(message.deadline_at for message in messages) - now,
        first_token_only=generates,
        requires=frozenset().union(*(message.requires for message in messages)),
    )
