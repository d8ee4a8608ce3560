"""An engine alone, in a process of the worker's environment: neither Triton nor Synapse."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@contextlib.contextmanager
def bare_process(script: str, argument: str) -> Iterator[subprocess.Popen[str]]:
    """A script of this folder, ready for orders (`ask`), ended on leaving."""
    process = subprocess.Popen(
        [str(ROOT / ".venv-worker/bin/python"), str(ROOT / "bench" / script), argument],
        env={**os.environ, "PYTHONPATH": str(ROOT / "workers")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()


def ask(bare: subprocess.Popen[str], order: dict[str, Any]) -> dict[str, Any]:
    """Its answer to one order."""
    assert bare.stdin is not None
    assert bare.stdout is not None
    bare.stdin.write(json.dumps(order) + "\n")
    bare.stdin.flush()
    answer: dict[str, Any] = json.loads(bare.stdout.readline())
    return answer
