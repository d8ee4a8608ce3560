"""How a request on the line went: what its caller and the operator are told of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from synapse.domain.job import Usage


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds, each from the moment the request was admitted.

    `held_s` is until a worker took it, `first_token_s` until the first part of the answer (None
    for an answer that came whole, or not at all).
    """

    held_s: float = 0.0
    first_token_s: float | None = None
    total_s: float = 0.0

    def per_token_s(self, completion_tokens: int) -> float | None:
        """Mean time between tokens after the first; None where there were not two."""
        if self.first_token_s is None or completion_tokens < 2:
            return None
        return (self.total_s - self.first_token_s) / (completion_tokens - 1)


@dataclass(frozen=True, slots=True)
class Answered:
    """The end of a request on the line.

    `outcome` is the reason why the model stopped (of vectors always `stop`), the code of an error,
    `cancelled` (the caller went away) or `refused` (not admitted; `pool` is empty then).
    """

    model: str
    pool: str
    outcome: str
    is_success: bool
    timings: Timings
    usage: Usage = field(default_factory=Usage)
