"""What is served: models, and what was seen of them at work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from synapse.domain.batching import BatchPolicy
from synapse.domain.extension import NO_EXTENSIONS, Extensions


class Task(StrEnum):
    """What a model does, which decides the tensors it is spoken to with (docs/worker.md)."""

    GENERATE = "generate"
    """Text generation: the tensors of Triton's vLLM backend, decoupled."""
    TEXT = "text"
    """Text in, text out: one batched tensor each way."""
    EMBED = "embed"
    """Texts in, a vector for each out: one batched tensor each way."""


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
    extensions: Extensions = NO_EXTENSIONS
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
