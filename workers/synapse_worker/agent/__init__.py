"""The agent beside a Triton: it brings models and takes them away, and tells how its worker is."""

from synapse_worker.agent.agent import Agent as Agent
from synapse_worker.agent.config import AgentConfig as AgentConfig
from synapse_worker.agent.snapshot import AgentState as AgentState
from synapse_worker.agent.snapshot import ModelStatus as ModelStatus
from synapse_worker.agent.snapshot import Snapshot as Snapshot
from synapse_worker.cache import CacheLevel as CacheLevel
