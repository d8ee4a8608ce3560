"""What the server prints once it serves."""

from __future__ import annotations

from collections.abc import Sequence

from synapse.domain.model import ModelSpec, Task

TRIED_FIRST = (Task.GENERATE, Task.TEXT, Task.EMBED)


def ready_text(url: str, specs: Sequence[ModelSpec]) -> str:
    """Where the API is, and two commands to paste that get an answer from a real model."""
    first_choices = sorted(specs, key=lambda spec: TRIED_FIRST.index(spec.task))
    model, task = first_choices[0].name, first_choices[0].task
    names = ", ".join(spec.name for spec in specs)
    key = "input" if task is Task.EMBED else "prompt"
    body = f'{{"model": "{model}", "{key}": "The future of AI is"}}'
    return f"""
Synapse serves {names}
  API    {url}
  docs   {url}/api/docs

Try it:

  job=$(curl -s -X POST {url}/async-infer -d '{body}' | cut -d'"' -f4)
  curl -s "{url}/results/$job?wait=30"

Ctrl-C stops everything.
"""
