"""What an agent is told about its worker."""

import secrets
from dataclasses import dataclass, field

from synapse_worker.config import WorkerConfig


def new_agent_id() -> str:
    """An id no other agent has."""
    return f"worker-{secrets.token_hex(6)}"


@dataclass(frozen=True)
class AgentConfig:
    """A worker with an agent.

    `worker.models` are loaded at the start; more may be loaded later. Those that are `pinned` are
    never taken away to make room. `endpoint_host` is the name under which others reach Triton,
    where that is not the address it binds to.
    """

    worker: WorkerConfig
    accelerator: str = "cpu"
    id: str = field(default_factory=new_agent_id)
    endpoint_host: str = ""
    pinned: frozenset[str] = frozenset()
    poll_interval_s: float = 1.0
    drain_timeout_s: float = 30.0
