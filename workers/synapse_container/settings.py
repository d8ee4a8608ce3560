"""What the environment of a container says."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from synapse.domain.pool import Pool
from synapse_worker.agent import AgentConfig
from synapse_worker.cache import CacheConfig
from synapse_worker.config import WorkerConfig

GRPC_PORT = 8001
HTTP_PORT = 8000
METRICS_PORT = 8002
CONTROL_PORT = 8010
PORTS = (HTTP_PORT, GRPC_PORT, METRICS_PORT, CONTROL_PORT)

ANYWHERE = ("192.0.2.1", 9)
"""An address that is nobody's (RFC 5737): the way there begins at the address others see."""


class SettingsError(Exception):
    """A setting is missing; the message names it."""


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    """One worker of a pool.

    `registry_table` is where it beats, empty where nobody needs to find it: a Lambda environment
    of the ordinary kind stands still between two calls. `worker_venv` is None where Triton is the
    container's own. `is_alone` says that no runner shares the container, so that others must
    reach Triton, at `address` if that is not where the way out of the machine begins. `ports` are
    Triton's for HTTP, gRPC and metrics, and that of the control API.
    """

    pool: str
    accelerator: str
    models: tuple[str, ...]
    model_source: str
    registry_table: str
    state_dir: Path
    worker_venv: Path | None
    is_alone: bool = True
    address: str = ""
    model_repository: Path = Path("/models")
    ports: tuple[int, int, int, int] = PORTS
    ready_timeout_s: float = 1800.0
    stop_timeout_s: float = 60.0

    @staticmethod
    def load(environ: Mapping[str, str], *, is_alone: bool = True) -> ContainerSettings:
        """Read the settings.

        Raises:
            SettingsError: one is missing.
        """
        models = tuple(filter(None, _required(environ, "SYNAPSE_MODELS").split(",")))
        beats = is_alone or environ.get("SYNAPSE_HEARTBEATS") == "true"
        venv = environ.get("SYNAPSE_WORKER_VENV", "")
        return ContainerSettings(
            pool=_required(environ, "SYNAPSE_POOL"),
            accelerator=_required(environ, "SYNAPSE_ACCELERATOR"),
            models=models,
            model_source=environ.get("SYNAPSE_MODEL_SOURCE", ""),
            registry_table=_required(environ, "SYNAPSE_REGISTRY_TABLE") if beats else "",
            state_dir=Path(environ.get("SYNAPSE_STATE_DIR", "/var/lib/synapse")),
            worker_venv=Path(venv) if venv else None,
            is_alone=is_alone,
            address=environ.get("SYNAPSE_ADDRESS", ""),
            model_repository=Path(environ.get("SYNAPSE_MODEL_REPOSITORY", "/models")),
            ports=ports_of(environ),
        )

    @property
    def control_port(self) -> int:
        """Where the control API listens."""
        return self.ports[3]

    def pool_of(self) -> Pool:
        """The pool, as far as heartbeats tell of it."""
        return Pool(self.pool, self.accelerator, models=frozenset(self.models))

    def agent_config(self) -> AgentConfig:
        """The worker in the agent's words.

        Raises:
            WorkerError: there cannot be such a worker.
        """
        worker = WorkerConfig(
            models=self.models,
            venv=self.worker_venv,
            model_repositories=(self.model_repository,),
            state_dir=self.state_dir,
            # Lambda's is no file that could be opened.
            log_file=Path("/dev/stdout") if self.is_alone else None,
            # Where an address is named, that one alone.
            host=(self.address or "0.0.0.0") if self.is_alone else "127.0.0.1",
            http_port=self.ports[0],
            grpc_port=self.ports[1],
            metrics_port=self.ports[2],
            ready_timeout_s=self.ready_timeout_s,
            stop_timeout_s=self.stop_timeout_s,
        )
        cache = None
        if self.model_source:
            cache = CacheConfig(self.model_source, self.state_dir / "cache")
        host = (self.address or own_address()) if self.is_alone else ""
        return AgentConfig(worker, self.accelerator, endpoint_host=host, cache=cache)


def ports_of(environ: Mapping[str, str]) -> tuple[int, int, int, int]:
    """Those of HTTP, gRPC, metrics and the control API.

    Raises:
        SettingsError: they are none.
    """
    text = environ.get("SYNAPSE_PORTS", "")
    if not text:
        return PORTS
    try:
        http, grpc, metrics, control = map(int, text.split(","))
    except ValueError as error:
        raise SettingsError("SYNAPSE_PORTS: must be four numbers, such as 8000,…") from error
    return http, grpc, metrics, control


def own_address() -> str:
    """The address of this machine as others in its network see it. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(ANYWHERE)
        address: str = probe.getsockname()[0]
        return address


def _required(environ: Mapping[str, str], key: str) -> str:
    value = environ.get(key, "")
    if not value:
        raise SettingsError(f"{key} is not set")
    return value
