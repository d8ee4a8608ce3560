"""A Synapse server of the benchmark's own: fresh data, free ports, gone at the end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Running:
    """A server that serves, and how long it took from the command to the first healthy answer."""

    url: str
    pid: int
    start_s: float
    port: int
    folder: Path


@contextlib.contextmanager
def server(
    models: str, pools: str = "", profile_s: float = 0.0, auth: str = "off"
) -> Iterator[Running]:
    """Start `synapse serve` with `models` and end it, with all its children, on leaving.

    `pools` is the text of a pools.toml, without one there is the one pool of a plain start. Each
    model is profiled in each pool before, for up to `profile_s` seconds. It asks for keys where
    `auth` is "on", and only there.
    """
    with tempfile.TemporaryDirectory(prefix="synapse-bench-") as folder:
        port = _free_port()
        program = str(Path(sys.executable).parent / "synapse")
        options = ["--data-dir", folder, "--models", models]
        if pools:
            Path(folder, "pools.toml").write_text(pools, encoding="utf-8")
            options += ["--pools", str(Path(folder, "pools.toml"))]
        if profile_s:
            profile = [program, "profile", *options, "--budget-s", str(profile_s)]
            subprocess.run(profile, check=True, stdout=subprocess.DEVNULL)
        command = [program, "serve", "--port", str(port), "--auth", auth, *options]
        started = time.perf_counter()
        log = Path(folder, "server.log").open("w", encoding="utf-8")  # noqa: SIM115
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_healthy(url, process, Path(folder, "server.log"))
            took_s = time.perf_counter() - started
            yield Running(url, process.pid, took_s, port, Path(folder))
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            log.close()


def resident_mib(pid: int) -> float:
    """Memory of one process in MiB (VmRSS)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _wait_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the server ended at its start:\n{log.read_text(encoding='utf-8')}")
        if _is_healthy(url):
            return
        time.sleep(0.02)
    raise SystemExit(f"the server did not get healthy within {START_TIMEOUT_S:g} s")


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            return bool(json.load(response)["status"] == "ok")
    except OSError:  # no answer yet, or a slow one
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
