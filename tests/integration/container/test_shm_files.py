"""A real Triton whose shared memory is files of a folder, as in an environment without /dev/shm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.daemon import ROOT, running
from tests.patience import PATIENCE_S
from tests.ports import free_port

SOURCE = ROOT / "workers" / "shm" / "shm_files.c"
COMPILER = shutil.which("cc")


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler here")
def test_triton_answers_and_keeps_its_regions_in_the_folder(tmp_path: Path) -> None:
    assert COMPILER is not None
    library, folder = tmp_path / "shm_files.so", tmp_path / "shm"
    folder.mkdir()
    flags = ("-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror")
    subprocess.run([COMPILER, *flags, "-o", library, SOURCE], check=True)
    port = free_port()
    command = [
        *(sys.executable, "-m", "synapse_worker", "--models", "echo"),
        *("--http-port", str(port), "--state-dir", str(tmp_path / "state")),
        *("--worker-venv", str(ROOT / os.environ.get("SYNAPSE_WORKER_VENV", ".venv-worker"))),
    ]
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "workers"),
        "LD_PRELOAD": str(library),
        "SYNAPSE_SHM_DIR": str(folder),
    }

    with running(command, env, tmp_path / "worker.log") as daemon:
        daemon.wait_until(lambda: "READY" in daemon.log_text(), 60)
        answer = infer(port, "hello")
        regions = [path.name for path in folder.iterdir() if path.stat().st_size > 1_000_000]

    assert "hello" in answer
    assert len(regions) == 1
    assert not (Path("/dev/shm") / regions[0]).exists()
    assert list(folder.iterdir()) == [], "its regions outlived it"


def infer(port: int, text: str) -> str:
    tensor = {"name": "text_input", "datatype": "BYTES", "shape": [1, 1], "data": [text]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/models/echo/infer",
        data=json.dumps({"inputs": [tensor]}).encode(),
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        return str(response.read().decode())
