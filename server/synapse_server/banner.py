"""What the server prints once it serves."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from synapse.domain.access import ORDINARY_SCOPES, Scope
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool
from synapse_server.config import DATA_DIR, ServerConfig

TRY_IT = "Try it:\n"
JOB_ID = r"""sed 's/^{"jobId":"\([^"]*\)".*/\1/'"""
"""Makes an id of a job's answer, and leaves an error as it is: who pastes the commands sees it."""
EVERYTHING = f"--scopes {Scope.ADMIN},{','.join(sorted(ORDINARY_SCOPES))}"
TRIED_FIRST = (Task.GENERATE, Task.TEXT, Task.EMBED)


def ready_text(
    config: ServerConfig, specs: Sequence[ModelSpec], program: str, first_key: str | None = None
) -> str:
    """Where the API is, who may call it, and commands to paste that get an answer from a model.

    `program` is the command that makes keys; `first_key` one that was just made, and is shown here
    and nowhere else. The pools are told where there are several.
    """
    first_choices = sorted(specs, key=lambda spec: TRIED_FIRST.index(spec.task))
    model, task = first_choices[0].name, first_choices[0].task
    names = ", ".join(spec.name for spec in specs)
    field = "input" if task is Task.EMBED else "prompt"
    body = f'{{"model": "{model}", "{field}": "The future of AI is"}}'
    url, header = config.url, ' -H "Authorization: Bearer $OPENAI_API_KEY"' if config.auth else ""
    return f"""
Synapse serves {names}
{_pools_text([local.pool for local in config.fleet.pools])}  API    {url}
  docs   {url}/api/docs
{_access_text(config, program, first_key)}
  job=$(curl -sS -X POST {url}/async-infer{header} -d '{body}' | {JOB_ID}); echo "$job"
  curl -sS "{url}/results/$job?wait=30"{header}

Ctrl-C stops everything.
"""


def _access_text(config: ServerConfig, program: str, first_key: str | None) -> str:
    if not config.auth:
        return f"  keys   nobody is asked for one (SYNAPSE_AUTH=off)\n\n{TRY_IT}"
    make = f"{shlex.quote(program)} keys create NAME"
    if config.data_dir != Path(DATA_DIR):
        make += f" --data-dir {shlex.quote(str(config.data_dir))}"
    make_text = f"export OPENAI_API_KEY=$({make})"
    if first_key is None:
        return (
            f"  keys   as made before; this makes one more (for everything: {EVERYTHING}):\n"
            f"\n  {make_text}\n\n{TRY_IT}"
        )
    return (
        f"  key    {first_key}\n"
        "         for everything; it is not shown again, so keep it. This makes others:\n"
        f"         {make_text}\n"
        f"\n{TRY_IT}\n  export OPENAI_API_KEY={first_key}"
    )


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
