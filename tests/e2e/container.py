"""A worker as it runs in a container: its entry point, its agent, its Triton, its heartbeats."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.daemon import ROOT, Daemon, running
from tests.e2e.emulator import CREDENTIALS
from tests.e2e.stack import Stack

PYTHONPATH = os.pathsep.join(str(ROOT / part) for part in ("workers", "layers/core", "server", "."))
"""What an image has in /opt/synapse."""


@contextlib.contextmanager
def container(stack: Stack, pool: str, directory: Path) -> Iterator[Daemon]:
    """A worker of `pool` that serves echo; what an image would set is set here."""
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": PYTHONPATH,
        "SYNAPSE_POOL": pool,
        "SYNAPSE_ACCELERATOR": "gpu",
        "SYNAPSE_MODELS": "echo",
        "SYNAPSE_MODEL_REPOSITORY": str(ROOT / "workers" / "triton" / "models"),
        "SYNAPSE_REGISTRY_TABLE": stack.outputs["RegistryTableName"],
        "SYNAPSE_STATE_DIR": str(directory / "state"),
        "SYNAPSE_WORKER_VENV": str(ROOT / os.environ.get("SYNAPSE_WORKER_VENV", ".venv-worker")),
        "SYNAPSE_ADDRESS": "127.0.0.1",
        "SYNAPSE_PORTS": "0,0,0,0",
        "AWS_ENDPOINT_URL": stack.emulator.url,
        **CREDENTIALS,
    }
    command = [sys.executable, "-m", "synapse_container", "worker"]
    with running(command, env, directory / "container.log") as daemon:
        yield daemon
