"""What the one-machine server is told: defaults < environment < command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from synapse.adapters.tokens.issuer import OidcIssuer
from synapse.domain.pool import Pool
from synapse.domain.webhook_url import NONE_ALLOWED, Allowed

DATA_DIR = ".synapse"
"""Where a server keeps its data that is told no folder."""


class StartError(Exception):
    """The server cannot start; the message is one line: the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class LocalPool:
    """A pool of this machine, and how its workers are set up.

    `model_parameters` overlays the `parameters` of a model's config.pbtxt, by model name. A worker
    starts with `models_at_start` (None: all of the pool's), and holds no more than
    `memory_budget_mb` of models at a time (None: as much as there is).
    """

    pool: Pool
    model_parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    models_at_start: frozenset[str] | None = None
    memory_budget_mb: int | None = None


@dataclass(frozen=True, slots=True)
class FleetTimes:
    """The clocks of the fleet, in seconds.

    A worker that has proved no life for `lease_s` is dead: its engine is asked every
    `beat_every_s`, and ended and started again when it has not answered for `hang_timeout_s`.
    Every model is tried on every worker each `ping_every_s`, and the pools' sizes are thought over
    each `scale_every_s`, or at once when work finds no worker. Workers are taken away that were
    not needed for `scale_in_after_s`, and no sooner than `cooldown_s` after the last change; they
    have `drain_s` for what they still work on.
    """

    beat_every_s: float = 2.0
    lease_s: float = 15.0
    hang_timeout_s: float = 60.0
    ping_every_s: float = 30.0
    scale_every_s: float = 1.0
    scale_in_after_s: float = 60.0
    cooldown_s: float = 30.0
    drain_s: float = 900.0


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """The pools of this machine, the first choice first, and the fleet's clocks."""

    pools: tuple[LocalPool, ...]
    times: FleetTimes = field(default_factory=FleetTimes)


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Settings of one server: `models` are served by the pools of `fleet`. Periods in seconds.

    Without `auth` nobody is asked who they are, which is only for a server that no other machine
    can reach. Tokens of `issuer` are accepted beside keys and those of users who log in. Pages of
    `cors_origins` may call from a browser.
    """

    host: str
    port: int
    data_dir: Path
    models: tuple[str, ...]
    worker_venv: Path
    fleet: FleetConfig
    models_dir: Path | None = None
    max_queued: int = 100_000
    auth: bool = True
    issuer: OidcIssuer | None = None
    sweep_every_s: float = 5.0
    drain_s: float = 5.0
    retention_s: float = 7 * 86_400.0
    webhook_allow: Allowed = NONE_ALLOWED
    cors_origins: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """Where the API answers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"
