"""The usage of an answer while it is being written. Pure."""

from __future__ import annotations

from synapse.api.openai.rendering import total_usage
from synapse.domain.inference import Delta
from synapse.domain.job import Usage


class UsageCount:
    """Counts the tokens of deltas; each prompt has so many `samples`."""

    def __init__(self, samples: int = 1) -> None:
        self._samples = samples
        self._prompts: dict[int, tuple[int, int | None]] = {}
        self._written = 0

    @property
    def usage(self) -> Usage:
        """What was used so far."""
        read = [Usage(tokens, 0, cached) for tokens, cached in self._prompts.values()]
        return total_usage([Usage(0, self._written), *read])

    def add(self, index: int, delta: Delta) -> None:
        """Count what was added to the choice number `index`."""
        self._written += delta.completion_tokens
        prompt, sample = divmod(index, self._samples)
        if sample == 0 and delta.prompt_tokens:  # the samples of a prompt share it
            _, cached = self._prompts.get(prompt, (0, None))
            cached = cached if delta.cached_tokens is None else delta.cached_tokens
            self._prompts[prompt] = (delta.prompt_tokens, cached)
