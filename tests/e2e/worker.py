"""A real Triton under the project's own supervisor, as a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from synapse_worker.stubs import children
from tests.e2e.daemon import ROOT, Daemon, running
from tests.patience import PATIENCE_S
from tests.ports import free_port

MODELS = "smollm2-135m-instruct,all-minilm-l6-v2,echo"
READY = re.compile(r"^READY", re.MULTILINE)


@dataclass(frozen=True)
class Worker:
    """A supervised Triton."""

    grpc_address: str
    daemon: Daemon
    log_file: Path
    """Triton's own."""

    def kill_triton(self) -> None:
        """End it without warning, as the kernel does when memory runs out."""
        os.kill(self._triton_pid(), signal.SIGKILL)

    def _triton_pid(self) -> int:
        for pid in children(self.daemon.process.pid):
            if "tritonserver" in Path(f"/proc/{pid}/cmdline").read_text():
                return pid
        raise RuntimeError("there is no Triton to kill")

    def times_ready(self) -> int:
        return len(READY.findall(self.daemon.log_text()))


@contextlib.contextmanager
def worker(directory: Path, models: str = MODELS) -> Iterator[Worker]:
    """A Triton that serves the models, ready."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "synapse_worker", "--models", models, "--test-hooks"),
        *("--grpc-port", str(port), "--state-dir", str(directory / "state")),
        *("--worker-venv", str(ROOT / os.environ.get("SYNAPSE_WORKER_VENV", ".venv-worker"))),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "workers")}
    with running(command, env, directory / "worker.log") as daemon:
        log_file = directory / "state" / "triton.log"
        found = Worker(f"127.0.0.1:{port}", daemon, log_file)
        daemon.wait_until(lambda: found.times_ready() > 0, PATIENCE_S)
        yield found
