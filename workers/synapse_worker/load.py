"""How busy an engine is. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """Requests in a slot, requests that wait for one, and what its cache of prompts has done.

    `kv_cache_use` is the share (0 to 1) of the tokens it can hold that running requests take.
    `prompt_tokens` and `cached_tokens` count since the start: tokens of prompts that were read, and
    how many of them were found in the prefix cache.
    """

    running: int = 0
    waiting: int = 0
    kv_cache_use: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
