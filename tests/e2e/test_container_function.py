"""A pool in Lambda without its image: the entry point, run by Lambda's own runtime emulator."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.container import PYTHONPATH
from tests.e2e.daemon import ROOT
from tests.e2e.emulator import CREDENTIALS, REGION
from tests.e2e.lambda_runtime import Runtime, lambda_container
from tests.e2e.stack import Stack
from tests.ports import free_port

PROBE = {
    "model": "echo",
    "pool": "cpu",
    "endpoint": "runner",
    "worker": "",
    "timeoutS": 20,
    "prompt": "ping",
    "inputs": [],
    "parameters": {"max_tokens": 1},
}


@pytest.fixture(scope="module")
def function(fleet: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """Runner and engine of the pool cpu, with the variables that the template gives it."""
    (cpu, *_) = json.loads(fleet.environment("dispatch")["SYNAPSE_POOLS"])
    config = fleet.emulator.functions.get_function_configuration(FunctionName=cpu["runnerArn"])
    folder = tmp_path_factory.mktemp("function")
    ports = [free_port() for _ in range(3)]
    variables = {
        **config["Environment"]["Variables"],
        "PYTHONPATH": PYTHONPATH,
        "SYNAPSE_MODELS": "echo",
        "SYNAPSE_MODEL_REPOSITORY": str(ROOT / "workers" / "triton" / "models"),
        "SYNAPSE_STATE_DIR": str(folder / "state"),
        "SYNAPSE_WORKER_VENV": str(ROOT / os.environ.get("SYNAPSE_WORKER_VENV", ".venv-worker")),
        "SYNAPSE_PORTS": ",".join(map(str, (*ports, 0))),
        "AWS_ENDPOINT_URL": fleet.emulator.url,
        "AWS_REGION": REGION,
        **CREDENTIALS,
    }
    pools = variables["SYNAPSE_POOLS"]
    variables["SYNAPSE_POOLS"] = pools.replace("127.0.0.1:8001", f"127.0.0.1:{ports[1]}")
    assert variables["SYNAPSE_POOLS"] != pools
    command = [sys.executable, "-m", "synapse_container", "function"]
    with lambda_container(command, variables, folder / "function.log") as runtime:
        yield runtime


def test_the_first_event_waits_for_the_engine_and_is_answered_by_it(function: Runtime) -> None:
    assert function.invoke({"probe": PROBE}) == {}


def test_a_batch_is_run_by_the_same_handler_as_everywhere(function: Runtime) -> None:
    event = json.loads((ROOT / "events" / "run_batch.batch.json").read_text())

    answer = function.invoke({**event, "pool": "cpu"})

    assert answer["batchId"] == event["batchId"]
