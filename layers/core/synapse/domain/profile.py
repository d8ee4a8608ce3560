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

    Beyond `saturates_at` items in flight (0: never seen) no more get done in the same time, and
    each takes longer in proportion. The first token of a generation has a company and a spread of
    its own, where they were measured: prompts get in each other's way more than answers do.
    `fit_error` is by how much the medians measured differ from these lines, as a share, at the
    median; `was_idle` says that the pool had nothing else to do meanwhile.
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
    saturates_at: int = 0
    first_company: float | None = None
    first_spread: float | None = None
    fit_error: float = 0.0
    was_idle: bool = True

    def together(self, slots: int) -> int:
        """How many items in flight are best for a worker with so many slots.

        It may have been measured with more slots than there are now.
        """
        return max(1, min(slots, self.best_batch))

    def rate(self, slots: int) -> float:
        """Items a second of a worker with so many slots, at its best; 0 if it was not measured."""
        fewer, best = self.together(slots), max(1, self.best_batch)
        times_as_long = self.slowdown(best) / self.slowdown(fewer)
        return self.items_per_s * times_as_long * fewer / best

    def slowdown(self, in_flight: int) -> float:
        """How many times as long as alone an item takes among `in_flight`."""
        return slowdown(in_flight, self.company, self.saturates_at)

    def alone_ms(self, prompt_tokens: int, output_tokens: int) -> float:
        """The median time of an item that has the worker for itself."""
        return (
            self.base_ms
            + prompt_tokens * self.prompt_token_ms
            + output_tokens * self.output_token_ms
        )

    def p50_ms(self, prompt_tokens: int, output_tokens: int, in_flight: int) -> float:
        """The median time of an item among `in_flight` on its worker, itself counted."""
        alone_ms = self.alone_ms(prompt_tokens, output_tokens)
        return alone_ms * self.slowdown(in_flight)

    def p99_ms(self, prompt_tokens: int, output_tokens: int, in_flight: int) -> float:
        """The 99th percentile of the same."""
        return self.spread * self.p50_ms(prompt_tokens, output_tokens, in_flight)

    def first_p50_ms(self, prompt_tokens: int, in_flight: int) -> float:
        """The median time to the first token of a generation among `in_flight`."""
        company = self.company if self.first_company is None else self.first_company
        alone_ms = self.alone_ms(prompt_tokens, 0)
        return alone_ms * slowdown(in_flight, company, self.saturates_at)

    def first_p99_ms(self, prompt_tokens: int, in_flight: int) -> float:
        """The 99th percentile of the same."""
        spread = self.spread if self.first_spread is None else self.first_spread
        return spread * self.first_p50_ms(prompt_tokens, in_flight)


def slowdown(in_flight: int, company: float, saturates_at: int = 0) -> float:
    """How many times as long as alone an item takes among `in_flight`; at least 1."""
    n = max(1, in_flight)
    side_by_side = n if saturates_at == 0 else min(n, saturates_at)
    return (1 + company * (side_by_side - 1)) * n / side_by_side
