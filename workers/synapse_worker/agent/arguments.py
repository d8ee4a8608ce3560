"""The agent's command line, of which a TOML file may give a part."""

import argparse
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synapse_worker.__main__ import add_worker_arguments, worker_config
from synapse_worker.agent.config import AgentConfig, new_agent_id
from synapse_worker.agent.serving import TOKEN_VARIABLE, ControlConfig
from synapse_worker.cache import CacheConfig
from synapse_worker.errors import WorkerError
from synapse_worker.ports import port_number

GIB = 1 << 30


def parse(
    arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[AgentConfig, ControlConfig]:
    """The command line as configurations.

    Raises:
        WorkerError: it, or the file it names, cannot be meant.
    """
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--config", type=Path)
    named, rest = first.parse_known_args(arguments)
    parser = _parser()
    # What the command line says comes last, and counts.
    given = parser.parse_args([*_from_file(parser, named.config), *rest])
    token = (os.environ if environ is None else environ).get(TOKEN_VARIABLE, "")
    return _agent_config(given), ControlConfig(given.control_host, given.control_port, token)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m synapse_worker.agent", description="Run a worker with its control API."
    )
    parser.add_argument("--config", type=Path, help="a TOML file with any of these")
    add_worker_arguments(parser)
    parser.add_argument("--control-host", default="127.0.0.1", help=f"else {TOKEN_VARIABLE}")
    parser.add_argument("--control-port", type=port_number, default=8003, help="0: any free port")
    parser.add_argument("--id", default="", help="this worker's; one is made up if none is given")
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--endpoint-host", default="", help="by which others reach Triton")
    parser.add_argument("--cache-source", help="s3://bucket/prefix, a folder or an http(s) address")
    parser.add_argument("--cache-folder", type=Path, help="where fetched models are kept")
    parser.add_argument("--disk-budget-gib", type=float, help="for fetched models")
    parser.add_argument("--memory-budget-gib", type=float, help="for loaded models")
    parser.add_argument("--cache-ttl-s", type=float, help="fetched models unused for so long go")
    parser.add_argument("--unload-after-s", type=float, help="loaded ones unused for so long go")
    parser.add_argument("--pinned", default="", help="names of models that stay, comma-separated")
    parser.add_argument("--drain-timeout-s", type=float, default=30.0)
    return parser


def _from_file(parser: argparse.ArgumentParser, path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise WorkerError(f"{path} cannot be read: {error}", "Correct it") from error
    defaults = vars(parser.parse_args([]))
    arguments: list[str] = []
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in defaults.keys() - {"config"}:
            raise WorkerError(f"{path}: there is no setting {key!r}", "See --help")
        arguments += _argument(f"--{name.replace('_', '-')}", value)
    return arguments


def _argument(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, list) and flag == "--model-repository":
        return [f"{flag}={each}" for each in value]
    if isinstance(value, list):
        return [f"{flag}={','.join(map(str, value))}"]
    return [f"{flag}={value}"]


def _agent_config(given: argparse.Namespace) -> AgentConfig:
    return AgentConfig(
        worker_config(given),
        accelerator=given.accelerator,
        id=given.id or new_agent_id(),
        endpoint_host=given.endpoint_host,
        cache=_cache_config(given),
        memory_budget_bytes=_bytes(given.memory_budget_gib),
        pinned=_names(given.pinned),
        unload_after_s=given.unload_after_s,
        drain_timeout_s=given.drain_timeout_s,
    )


def _cache_config(given: argparse.Namespace) -> CacheConfig | None:
    if given.cache_source is None:
        return None
    return CacheConfig(
        source=given.cache_source,
        folder=given.cache_folder or given.state_dir / "models",
        disk_budget_bytes=_bytes(given.disk_budget_gib),
        ttl_s=given.cache_ttl_s,
        pinned=_names(given.pinned),
    )


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else int(gib * GIB)


def _names(given: str) -> frozenset[str]:
    return frozenset(filter(None, given.split(",")))
