"""How long an item should take by its size and its company: what measured times are held against.

Where a worker has a profile, its median is expected. Where it has none, sizes are still compared:
an item is as long as its tokens are many, in units that mean nothing by themselves. Either way the
times that were measured lately, divided by these, are of one kind whatever was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from synapse.domain.profile import Profile

FIXED_TOKENS = 32
"""Without a profile: what every item costs, in tokens read."""

WRITTEN_PER_READ = 8
"""Without a profile: how many tokens are read in the time in which one is written."""


@dataclass(frozen=True, slots=True)
class Work:
    """The size of an item: tokens to read, and to write."""

    prompt_tokens: int = 0
    output_tokens: int = 0


def whole_ms(profile: Profile | None, work: Work, in_flight: int, slots: int) -> float:
    """The median time of an item among `in_flight` on its worker, itself counted.

    Beyond the `slots` it waits for its turn. In units of no meaning where there is no profile.
    """
    turns = max(1.0, in_flight / slots)
    if profile is not None:
        at_once = min(in_flight, slots)
        return turns * profile.p50_ms(work.prompt_tokens, work.output_tokens, at_once)
    read = (work.prompt_tokens + FIXED_TOKENS) / WRITTEN_PER_READ
    return turns * (read + work.output_tokens)


def first_ms(profile: Profile | None, work: Work, in_flight: int, slots: int) -> float:
    """The same, until the first token of a generation."""
    turns = max(1.0, in_flight / slots)
    if profile is not None:
        return turns * profile.first_p50_ms(work.prompt_tokens, min(in_flight, slots))
    return turns * (work.prompt_tokens + FIXED_TOKENS) / WRITTEN_PER_READ
