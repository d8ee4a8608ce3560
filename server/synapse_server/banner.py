"""What the server prints once it serves."""

from __future__ import annotations

from collections.abc import Sequence

from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool

TRIED_FIRST = (Task.GENERATE, Task.TEXT, Task.EMBED)


def ready_text(url: str, specs: Sequence[ModelSpec], pools: Sequence[Pool] = ()) -> str:
    """Where the API is, and two commands to paste that get an answer from a real model.

    The pools are told where there are several.
    """
    first_choices = sorted(specs, key=lambda spec: TRIED_FIRST.index(spec.task))
    model, task = first_choices[0].name, first_choices[0].task
    names = ", ".join(spec.name for spec in specs)
    key = "input" if task is Task.EMBED else "prompt"
    body = f'{{"model": "{model}", "{key}": "The future of AI is"}}'
    return f"""
Synapse serves {names}
{_pools_text(pools)}  API    {url}
  docs   {url}/api/docs

Try it:

  job=$(curl -s -X POST {url}/async-infer -d '{body}' | cut -d'"' -f4)
  curl -s "{url}/results/$job?wait=30"

Ctrl-C stops everything.
"""


def _pools_text(pools: Sequence[Pool]) -> str:
    if len(pools) < 2:
        return ""
    return "".join(f"  pool   {_pool_text(pool)}\n" for pool in pools)


def _pool_text(pool: Pool) -> str:
    if pool.is_fixed:
        return f"{pool.name}: {pool.accelerator}, the engine at {pool.endpoint}"
    workers = f"{pool.min_workers} to {pool.max_workers} workers"
    if pool.min_workers == pool.max_workers:
        workers = f"{pool.max_workers} worker{'s' if pool.max_workers > 1 else ''}"
    price = f", ${pool.price_per_hour_usd:g}/h each" if pool.price_per_hour_usd else ""
    return f"{pool.name}: {pool.accelerator}, {workers}{price}"
