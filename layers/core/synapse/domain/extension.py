"""What engines do beyond the contract of a task."""

from __future__ import annotations

from enum import StrEnum


class Extension(StrEnum):
    """What a model's worker does beyond the contract of its task (docs/worker.md)."""

    CACHED_TOKENS = "cached_tokens"
    """It tells how many of a prompt's tokens were in its prefix cache."""
    PROMPT_TOKEN_IDS = "prompt_token_ids"
    """It takes a prompt as the ids of its tokens."""
    PRIORITY = "priority"
    """Of the requests that wait for one of its slots it takes the most urgent first."""


Extensions = frozenset[Extension]

NO_EXTENSIONS: Extensions = frozenset()
