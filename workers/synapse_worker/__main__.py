"""Run a supervised Triton by hand: `python -m synapse_worker --models echo --grpc-port 8001`."""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from synapse_worker.config import (
    BUNDLED_MODELS,
    WorkerConfig,
    default_state_dir,
    default_venv,
)
from synapse_worker.errors import WorkerError
from synapse_worker.ports import port_number
from synapse_worker.supervisor import Supervisor, WorkerState, WorkerStatus


def parse(arguments: list[str] | None = None) -> WorkerConfig:
    """The command line as a configuration."""
    parser = argparse.ArgumentParser(prog="python -m synapse_worker", description=__doc__)
    add_worker_arguments(parser)
    config = worker_config(parser.parse_args(arguments))
    if not config.models:
        parser.error("--models is needed")
    return config


def add_worker_arguments(parser: argparse.ArgumentParser) -> None:
    """What every way of running a worker can be told."""
    parser.add_argument("--models", default="", help="to start with, separated by commas")
    parser.add_argument("--worker-venv", type=Path, default=default_venv())
    parser.add_argument("--container", action="store_true", help="use the container's own Triton")
    parser.add_argument("--model-repository", type=Path, action="append")
    parser.add_argument("--state-dir", type=Path, default=default_state_dir())
    parser.add_argument("--log-file", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    for protocol in ("http", "grpc", "metrics"):
        parser.add_argument(
            f"--{protocol}-port", type=port_number, default=0, help="0: any free port"
        )
    parser.add_argument("--ready-timeout-s", type=float, default=120.0)
    parser.add_argument("--stop-timeout-s", type=float, default=15.0)
    parser.add_argument("--test-hooks", action="store_true", help="let items of echo misbehave")


def worker_config(given: argparse.Namespace) -> WorkerConfig:
    """What was told as a configuration."""
    return WorkerConfig(
        models=tuple(filter(None, given.models.split(","))),
        venv=None if given.container else given.worker_venv,
        model_repositories=tuple(given.model_repository or [BUNDLED_MODELS]),
        state_dir=given.state_dir,
        log_file=given.log_file,
        host=given.host,
        http_port=given.http_port,
        grpc_port=given.grpc_port,
        metrics_port=given.metrics_port,
        ready_timeout_s=given.ready_timeout_s,
        stop_timeout_s=given.stop_timeout_s,
        model_parameters={"echo": {"test_hooks": "true"}} if given.test_hooks else {},
    )


async def run(config: WorkerConfig) -> int:
    """Until a signal, or until the worker has failed for good."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    worker = Supervisor(config, on_change=_report)
    starting = asyncio.create_task(worker.start())
    stopping = asyncio.create_task(stopped.wait())
    failing = asyncio.create_task(worker.wait_for(WorkerState.FAILED))
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        await asyncio.gather(starting)
        _say(f"gRPC {worker.grpc_address}  HTTP {worker.http_address}")
        await asyncio.wait({stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
    except (WorkerError, asyncio.CancelledError):
        pass
    finally:
        for task in (stopping, failing):
            task.cancel()
        await worker.stop()
    return 0 if stopped.is_set() else 1


def _report(status: WorkerStatus) -> None:
    told = status.state in (WorkerState.RESTARTING, WorkerState.FAILED)
    _say(". ".join([status.state, *([status.cause, status.remedy] if told else [])]))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> None:
    """Entry point of `python -m synapse_worker`."""
    logging.basicConfig(level=logging.CRITICAL)  # every change of state is told by _report
    try:
        sys.exit(asyncio.run(run(parse())))
    except WorkerError as error:
        _say(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
