"""What is served: models, and what was seen of them at work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from synapse.domain.batching import BatchPolicy


class Task(StrEnum):
    """What a model does, which decides the tensors it is spoken to with (docs/worker.md)."""

    GENERATE = "generate"
    """Text generation: the tensors of Triton's vLLM backend, decoupled."""
    TEXT = "text"
    """Text in, text out: one batched tensor each way."""
    EMBED = "embed"
    """Texts in, a vector for each out: one batched tensor each way."""


class Extension(StrEnum):
    """What a model's worker does beyond the contract of its task (docs/worker.md)."""

    CACHED_TOKENS = "cached_tokens"
    """It tells how many of a prompt's tokens were in its prefix cache."""
    PROMPT_TOKEN_IDS = "prompt_token_ids"
    """It takes a prompt as the ids of its tokens."""
    PRIORITY = "priority"
    """Of the requests that wait for one of its slots it takes the most urgent first."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A served model.

    `context_tokens` bounds prompt plus output; `slots` is how many requests one worker works on
    at once; `chat_template` is the model's own Jinja template, None where it has none;
    `tool_parser` is the form in which it writes calls of tools, None if it makes none.
    `dimensions` is the length of the vectors of a model that embeds, 0 for the others, and
    `context_tokens` the longest of its inputs.
    """

    name: str
    version: str
    task: Task
    context_tokens: int
    max_output_tokens: int
    slots: int
    batch: BatchPolicy
    chat_template: str | None = None
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    owner: str = "synapse"
    created_at: int = 0
    dimensions: int = 0
    extensions: frozenset[Extension] = frozenset()
    tool_parser: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """What the pinger last saw of a (model, pool), or of one `worker` of it."""

    model: str
    pool: str
    healthy: bool
    latency_ms: float
    checked_at: float
    detail: str = ""
    worker: str = ""


@dataclass(frozen=True, slots=True)
class ServiceSample:
    """`items` finished in a pool, which took `busy_s` seconds of slot time between them."""

    model: str
    pool: str
    items: int
    busy_s: float
