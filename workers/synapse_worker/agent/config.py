"""What an agent is told about its worker."""

import secrets
from dataclasses import dataclass, field

from synapse_worker.cache import CacheConfig
from synapse_worker.config import WorkerConfig


def new_agent_id() -> str:
    """An id no other agent has."""
    return f"worker-{secrets.token_hex(6)}"


@dataclass(frozen=True)
class AgentConfig:
    """A worker with an agent.

    `worker.models` are loaded at the start; more may be loaded later, from the worker's model
    repositories or else from the `cache`. `memory_budget_bytes` bounds what is loaded at a time
    (None: as much as there is). Room is made by unloading what was used least recently, and what
    was not used for `unload_after_s` goes anyway; never a model that is in use or `pinned`.
    `endpoint_host` is the name under which others reach Triton, where that is not the address it
    binds to.
    """

    worker: WorkerConfig
    accelerator: str = "cpu"
    id: str = field(default_factory=new_agent_id)
    endpoint_host: str = ""
    cache: CacheConfig | None = None
    memory_budget_bytes: int | None = None
    pinned: frozenset[str] = frozenset()
    unload_after_s: float | None = None
    poll_interval_s: float = 1.0
    drain_timeout_s: float = 30.0

    def is_pinned(self, model: str) -> bool:
        """Whether it is never taken away to make room."""
        return model in self.pinned or (self.cache is not None and model in self.cache.pinned)
