"""What the suite runs against: it knows a base URL and a key, as a user's program does."""

from __future__ import annotations

from dataclasses import dataclass

LLM = "smollm2-135m-instruct"
EMBEDDER = "all-minilm-l6-v2"
DIMENSIONS = 384
CONTEXT_TOKENS = 2048


@dataclass(frozen=True)
class Target:
    """A running Synapse.

    `base_url` ends in /v1. `can_stream` says whether its front door passes a stream on piece by
    piece, `max_upload_bytes` what it takes in one request.
    """

    base_url: str
    api_key: str
    can_stream: bool = True
    max_upload_bytes: int = 200_000_000
