"""What a request on the line is told of its run: how long it was held, where it ran, its cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

from synapse.application.accounting import Accounting
from synapse.application.cold_start import ColdStart, ColdStarts
from synapse.application.generation import CANCELLED, Generation
from synapse.domain.access import Principal
from synapse.domain.answer import Timings
from synapse.domain.inference import ModelInput
from synapse.domain.model import ModelSpec
from synapse.domain.receipt import NO_COST, cold_ms
from synapse.ports import Clock


@dataclass(frozen=True, slots=True)
class DirectReceipts:
    """Writes the receipts of requests that are left, and counts them."""

    clock: Clock
    accounting: Accounting | None = None
    cold_starts: ColdStarts | None = None

    async def write(
        self, caller: Principal, value: ModelInput, generation: Generation, cold: ColdStart | None
    ) -> None:
        """Write the receipt of a generation, and count it unless nobody asked for its answer.

        `cold` is what the request found if no worker was up when it came.
        """
        timings, spec, cost = generation.timings, generation.spec, NO_COST
        if self.accounting is not None and generation.is_taken:
            ran_s = timings.total_s - timings.held_s
            slots = generation.pool.slots_of(spec)
            cost = await self.accounting.cost(generation.pool, ran_s, value.samples, slots)
        receipt = replace(
            generation.receipt_so_far(),
            queue_ms=timings.held_s * 1000,
            cold_ms=0.0 if cold is None else await self._cold_ms(spec, value, timings),
            inference_ms=(timings.total_s - timings.held_s) * 1000,
            usage=generation.usage,
            cost=cost,
        )
        generation.receipt = receipt
        if self.accounting is not None and not generation.was_withdrawn:
            failed = not generation.is_success and generation.outcome != CANCELLED
            await self.accounting.count(caller, spec.name, receipt, failed=failed)

    async def _cold_ms(self, spec: ModelSpec, value: ModelInput, timings: Timings) -> float:
        """Of the wait of one who came when no worker was up, how much was for that."""
        assert self.cold_starts is not None, "nobody else tells of cold starts"
        came_at = self.clock() - timings.total_s
        up_at = await self.cold_starts.up_at(spec, value.requires)
        taken_at = came_at + timings.held_s
        return cold_ms(came_at, taken_at, taken_at if up_at is None else up_at)
