"""State machines, run: their JSONata by Node.js, their tasks answered by a script."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.infra.translation import ROOT

RUNNER = Path(__file__).with_name("asl_runner.mjs")
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(
    NODE is None or not (ROOT / "node_modules" / "jsonata").is_dir(),
    reason="no Node.js with jsonata (make setup installs it where npm is)",
)


def machine(name: str) -> Any:
    """The definition of one of the application's state machines."""
    return json.loads((ROOT / "statemachines" / f"{name}.asl.json").read_text())


def run(machine: Any, given: Any, script: dict[str, list[dict[str, Any]]]) -> Any:
    """How an execution with this input ends, and what it called; see `asl_runner.mjs`."""
    assert NODE is not None
    task = {"machine": machine, "input": given, "script": script}
    done = subprocess.run(
        [NODE, RUNNER], input=json.dumps(task), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
