"""One completion of several continuations of the same input. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from synapse.domain.inference import Completion
from synapse.domain.job import Usage


def merged(samples: Sequence[Completion]) -> Completion:
    """All samples as one completion. They share the prompt, so it counts once."""
    first = samples[0]
    written = sum(sample.usage.completion_tokens for sample in samples)
    others = tuple(choice for sample in samples[1:] for choice in sample.choices)
    usage = Usage(first.usage.prompt_tokens, written, first.usage.cached_tokens)
    return replace(first, usage=usage, others=others)
