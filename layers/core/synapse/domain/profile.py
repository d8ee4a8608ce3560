"""What a model costs in time and money on one kind of worker, as the profiler measured it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """How fast one worker of a pool is with one version of a model.

    An item alone on the worker takes, at the median, `base_ms` plus its tokens' times; every
    other item in flight with it adds `company` times that (0: the worker's slots are independent,
    1: two take twice as long). `spread` is p99 ÷ median, at least 1. At its best the worker
    finishes `items_per_s`, with `best_batch` items in flight, which cost `usd_per_1k_items`.
    """

    model: str
    version: str
    pool: str
    accelerator: str
    base_ms: float
    prompt_token_ms: float = 0.0
    output_token_ms: float = 0.0
    company: float = 0.0
    spread: float = 1.0
    best_batch: int = 1
    items_per_s: float = 0.0
    usd_per_1k_items: float = 0.0
    samples: int = 0
    measured_at: float = 0.0

    def alone_ms(self, prompt_tokens: int, output_tokens: int) -> float:
        """The median time of an item that has the worker for itself."""
        return (
            self.base_ms
            + prompt_tokens * self.prompt_token_ms
            + output_tokens * self.output_token_ms
        )

    def p50_ms(self, prompt_tokens: int, output_tokens: int, in_flight: int) -> float:
        """The median time of an item among `in_flight` on its worker, itself counted."""
        others = max(0, in_flight - 1)
        return self.alone_ms(prompt_tokens, output_tokens) * (1 + self.company * others)

    def p99_ms(self, prompt_tokens: int, output_tokens: int, in_flight: int) -> float:
        """The 99th percentile of the same."""
        return self.spread * self.p50_ms(prompt_tokens, output_tokens, in_flight)
