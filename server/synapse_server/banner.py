"""What the server prints once it serves."""

from __future__ import annotations

from collections.abc import Sequence

from synapse.domain.model import ModelSpec, Task


def ready_text(url: str, specs: Sequence[ModelSpec]) -> str:
    """Where the API is, and two commands to paste that get an answer from a real model."""
    model = next((s.name for s in specs if s.task is Task.GENERATE), specs[0].name)
    names = ", ".join(spec.name for spec in specs)
    body = f'{{"model": "{model}", "prompt": "The future of AI is"}}'
    return f"""
Synapse serves {names}
  API    {url}
  docs   {url}/api/docs

Try it:

  job=$(curl -s -X POST {url}/async-infer -d '{body}' | cut -d'"' -f4)
  curl -s "{url}/results/$job?wait=30"

Ctrl-C stops everything.
"""
