"""A real `synapse serve` in a process of its own, as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from synapse_worker.stubs import children
from tests.patience import PATIENCE_S
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
SYNAPSE = Path(sys.executable).parent / "synapse"
WORKER_VENV = Path(os.environ.get("SYNAPSE_WORKER_VENV", str(ROOT / ".venv-worker")))
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "EXPIRED"}


def serve_command(
    data_dir: Path, port: int, models: str, *more: str, auth: str = "off"
) -> list[str]:
    return [
        str(SYNAPSE),
        *("serve", "--port", str(port), "--data-dir", str(data_dir), "--models", models),
        *("--worker-venv", str(WORKER_VENV), "--auth", auth, *more),
    ]


class Server:
    """Start it, kill it, start it again: the data folder and the port stay.

    It asks nobody for a key unless `auth` is "on".
    """

    def __init__(self, data_dir: Path, models: str, *more: str, auth: str = "off") -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data_dir.parent / "server.log"
        self._command = serve_command(data_dir, self.port, models, *more, auth=auth)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AssertionError(f"the server ended:\n{self.log.read_text()}")
            try:
                if httpx.get(f"{self.url}/health").json()["status"] == "ok":
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"not healthy in time:\n{self.log.read_text()}")

    def new_key(self, *more: str) -> str:
        """A key that the `synapse` command makes, beside the running server."""
        command = [
            str(SYNAPSE),
            "keys",
            "create",
            "a test",
            "--data-dir",
            str(self.data_dir),
            *more,
        ]
        made = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=PATIENCE_S
        )
        return made.stdout.strip()

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Signal the server and wait for its end; returns its exit code."""
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(PATIENCE_S)

    def kill(self) -> None:
        """End it as a crash does."""
        self.stop(signal.SIGKILL)

    def close(self) -> None:
        """End it whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def descendants(self) -> list[int]:
        """The processes below the server: Triton and what it started."""
        return descendants(self.pid)


def descendants(pid: int) -> list[int]:
    """Those that are there at the moment: some may end while they are looked for."""
    own = children(pid)
    return own + [below for child in own for below in descendants(child)]


def alive(pids: Sequence[int]) -> list[int]:
    """Those of the processes that still run (a zombie does not)."""
    return [pid for pid in pids if _state(pid) not in ("", "Z")]


def wait_gone(pids: Sequence[int], seconds: float = PATIENCE_S) -> list[int]:
    """Give processes time to end; returns those that did not."""
    deadline = time.monotonic() + seconds
    while (left := alive(pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def submit(client: httpx.Client, url: str, prompt: str, **more: Any) -> str:
    body = {"model": "echo", "prompt": prompt, **more}
    response = client.post(f"{url}/async-infer", json=body)
    assert response.status_code == 202, response.text
    return str(response.json()["jobId"])


def finished(client: httpx.Client, url: str, job_id: str) -> dict[str, Any]:
    """The job once it has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        response = client.get(f"{url}/results/{job_id}", params={"wait": 20}, timeout=PATIENCE_S)
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        if body["status"] in FINAL:
            return body
    raise AssertionError(f"job {job_id} is still {body['status']}")
