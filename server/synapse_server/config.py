"""What the one-machine server is told: defaults < environment < command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class StartError(Exception):
    """The server cannot start; the message is one line: the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Settings of one server.

    `models` are loaded at start; `engine_url` (host:port) points to a Triton that runs already,
    in which case none is started. Windows and periods are in seconds.
    """

    host: str
    port: int
    data_dir: Path
    models: tuple[str, ...]
    worker_venv: Path
    engine_url: str | None = None
    models_dir: Path | None = None
    max_queued: int = 100_000
    ping_every_s: float = 30.0
    sweep_every_s: float = 5.0
    drain_s: float = 5.0
    retention_s: float = 7 * 86_400.0

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"http://{self.host}:{self.port}"
