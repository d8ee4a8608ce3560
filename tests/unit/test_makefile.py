"""What the Makefile does in which order."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_deployment_that_says_too_little_is_refused_before_it_is_built() -> None:
    """The build takes minutes."""
    told = subprocess.run(
        ["make", "--dry-run", "deploy"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout

    steps = ("say where Triton is", "sam build", "sam deploy")
    assert sorted(steps, key=told.index) == list(steps)
