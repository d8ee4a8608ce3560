"""The `synapse` command."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from synapse import __version__
from synapse.domain.webhook_url import NONE_ALLOWED
from synapse_server.access_cli import add_access_commands
from synapse_server.arguments import count, folder, log_level, on_or_off, origins, places
from synapse_server.config import DATA_DIR, FleetConfig, ServerConfig, StartError
from synapse_server.cost_cli import add_cost_command
from synapse_server.log import log_from
from synapse_server.oidc_options import add_oidc_options, issuer_of
from synapse_server.pools_file import one_pool, read_pools
from synapse_server.terminal import write_no_more
from synapse_server.users_cli import add_users_command
from synapse_worker.config import default_venv
from synapse_worker.ports import port_number

INTERRUPTED = 130
"""What a command returns that Ctrl-C has ended, as shells have it: 128 and the signal's number."""

MODELS = "smollm2-135m-instruct,all-minilm-l6-v2,echo"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if all went well, 1 with a one-line reason, 2 for bad arguments.

    Ctrl-C is how a server is stopped, which makes 0; what it ends before its end returns 130.
    """
    try:
        status = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has seen enough, as `head` has.
        write_no_more()
        return 0
    return status


def _run(argv: Sequence[str] | None) -> int:
    arguments = _parser(os.environ).parse_args(argv)
    if arguments.command is None:
        _parser(os.environ).print_help()
        return 2
    try:
        if "run" in arguments:
            return int(arguments.run(arguments))
        log_from(arguments.log_level)
        config = _config(arguments)
        if arguments.command == "profile":
            return _profile(config, arguments)
        _serve(config)
    except StartError as error:
        print(f"synapse: {error}", file=sys.stderr)  # noqa: T201 - the command's own answer
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 0 if arguments.command == "serve" else INTERRUPTED
    return 0


def _serve(config: ServerConfig) -> None:
    import uvloop

    from synapse_server.serve import serve

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(config))


def _profile(config: ServerConfig, arguments: argparse.Namespace) -> int:
    from synapse_server.profiling import Wish, profile, table

    if not 0 < arguments.budget_s < math.inf:
        raise StartError(f"--budget-s: must be more than 0 seconds, not {arguments.budget_s:g}")

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - for who waits

    wish = Wish(arguments.model, arguments.pool, arguments.force, arguments.budget_s)
    reports = asyncio.run(profile(config, wish, say))
    print(table(reports))  # noqa: T201 - the command's own answer
    return 0 if all(report.profile for report in reports) else 1


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="synapse", description="Model inference, durable.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serve = _command(commands, "serve", "serve models on this machine until Ctrl-C")
    option = _Options(serve, environ)
    option("host", "127.0.0.1", "address to listen on")
    option("port", "8080", "port to listen on; 0 is any that is free", port_number)
    option("auth", "on", "ask who calls; off only on an address of this machine's own", on_or_off)
    add_oidc_options(option)
    option(
        "cors-origins", "", "https://host,… or * (any) whose pages may call from a browser", origins
    )
    option("webhook-allow", "", "host:port,… that webhooks may reach though not public", places)
    _fleet_options(option)
    option("max-queued", "100000", "jobs waiting before submissions are refused", count)
    profile = _command(commands, "profile", "measure how fast models are on each pool")
    profile.add_argument("--model", default="", help="only this one")
    profile.add_argument("--pool", default="", help="only this one")
    profile.add_argument("--force", action="store_true", help="also what has a profile already")
    profile.add_argument("--budget-s", default=60.0, type=float, help="for each model and pool")
    profile.set_defaults(host="", port=0, max_queued=1, auth=True, webhook_allow=NONE_ALLOWED)
    profile.set_defaults(cors_origins=())
    _fleet_options(_Options(profile, environ))
    add_access_commands(commands, environ)
    add_users_command(commands, environ)
    add_cost_command(commands)
    return parser


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    return made


class _Options:
    """Adds options of a command that the environment may set too; the help says by what name."""

    def __init__(self, parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
        self._parser = parser
        self._environ = environ

    def __call__(
        self,
        name: str,
        default: str,
        text: str,
        kind: Callable[[str], Any] = str,
        variable: str | None = None,
    ) -> None:
        variable = variable or "SYNAPSE_" + name.upper().replace("-", "_")
        value = self._environ.get(variable, default)
        text = f"{text} [{variable}]"
        self._parser.add_argument(f"--{name}", default=value, type=kind, help=text)


def _fleet_options(option: _Options) -> None:
    option("data-dir", DATA_DIR, "records, payloads, worker state and logs", folder)
    option("models", "", f"models to load, comma-separated; {MODELS} if no pool names others")
    option("models-dir", "", "folder with more catalogue entries and Triton models")
    option("pools", "", "file that declares pools of workers", variable="SYNAPSE_POOLS_FILE")
    option("engine-url", "", "host:port of a running Triton's gRPC (starts none)")
    option("worker-venv", str(default_venv()), "virtual environment with Triton", Path)
    option("log-level", "warning", "debug, info, warning or error", log_level)


def _config(arguments: argparse.Namespace) -> ServerConfig:
    fleet = _fleet(arguments)
    return ServerConfig(
        host=arguments.host,
        port=arguments.port,
        data_dir=arguments.data_dir,
        models=_models(arguments.models, fleet),
        worker_venv=arguments.worker_venv,
        fleet=fleet,
        models_dir=Path(arguments.models_dir) if arguments.models_dir else None,
        max_queued=arguments.max_queued,
        auth=arguments.auth,
        issuer=issuer_of(arguments),
        webhook_allow=arguments.webhook_allow,
        cors_origins=arguments.cors_origins,
    )


def _fleet(arguments: argparse.Namespace) -> FleetConfig:
    if arguments.pools and arguments.engine_url:
        raise StartError("--pools and --engine-url: give one; a pool may have an engine_url too")
    if arguments.pools:
        return read_pools(Path(arguments.pools))
    return one_pool(arguments.engine_url or None)


def _models(wanted: str, fleet: FleetConfig) -> tuple[str, ...]:
    """Those asked for; failing that, those the pools name, and ours for pools that name none."""
    models = tuple(name.strip() for name in wanted.split(",") if name.strip())
    if wanted and not models:
        raise StartError("--models names no model; give at least one")
    if models:
        return models
    pools = [local.pool for local in fleet.pools]
    named = sorted({model for pool in pools for model in pool.models})
    ours = MODELS.split(",") if any(not pool.models for pool in pools) else []
    return tuple(dict.fromkeys([*ours, *named]))
