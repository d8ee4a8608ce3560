"""How much a call asks for, and from when on its answer is slow, or so late that it may never come.

Held against what the profile says and what calls took lately, both by size
(`domain.expectation`): a long prompt is no reason to give a worker up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from synapse.application.intake import BYTES_PER_TOKEN
from synapse.domain.expectation import Work
from synapse.domain.job import SlaTier
from synapse.domain.latency import Quantiles
from synapse.domain.model import ModelSpec, Task
from synapse.ports import InferenceRequest


@dataclass(frozen=True, slots=True)
class Patience:
    """From when on a call is slow, and from when on late.

    It is slow if it takes `times_p99` times the profile's p99 and `times_p50` times the median of
    the last minute, if there were `min_samples`; but not before `min_slow_s`. One that may still
    come is late after as long, but not before `min_late_s`. If this process itself was held up
    for `stall_s`, its workers are not to blame.
    """

    times_p99: float = 3.0
    times_p50: float = 5.0
    min_samples: int = 8
    min_slow_s: float = 0.05
    min_late_s: float = 2.0
    stall_s: float = 0.5

    def factor(self, live: Quantiles | None, spread: float | None) -> float | None:
        """How many times what is expected is slow; None where nothing tells."""
        factor = None
        if live is not None and live.count >= self.min_samples:
            factor = self.times_p50 * live.p50
        if spread is not None:
            factor = max(factor or 0.0, self.times_p99 * spread)
        return factor


@dataclass(frozen=True, slots=True)
class Size:
    """What a call asks for: its items, and the work of one, with all the output it may have.

    Those of a call are of one tier.
    """

    items: int
    work: Work
    tier: SlaTier = SlaTier.SILVER

    @classmethod
    def of(cls, model: ModelSpec, requests: Sequence[InferenceRequest]) -> Self:
        """That of requests that are sent together: the mean to read, the most to write."""
        items = sum([request.input.samples for request in requests])
        size = sum([request.input.size_bytes for request in requests])
        written = 0
        if model.task is Task.GENERATE:
            asked = [request.input.parameters.get("max_tokens") for request in requests]
            most = model.max_output_tokens
            written = max([each if isinstance(each, int) else most for each in asked])
        work = Work(size // len(requests) // BYTES_PER_TOKEN + 1, written)
        return cls(items, work, requests[0].tier)
