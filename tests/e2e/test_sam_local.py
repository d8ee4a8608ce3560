"""`sam local invoke` of each function with an event of its own, where there is Docker."""

from __future__ import annotations

import ipaddress
import json
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import sam
from tests.e2e.daemon import ROOT
from tests.e2e.emulator import CREDENTIALS
from tests.e2e.lambda_runtime import ARCHITECTURES
from tests.e2e.relay import relay
from tests.e2e.stack import FUNCTIONS, Stack, logical_id
from tests.e2e.test_lambda_runtime import SAMPLE_KEY
from tests.e2e.worker import Worker
from tests.infra.translation import TEMPLATE, read

PYTHON_VERSION = read(TEMPLATE)["Parameters"]["PythonRuntime"]["Default"].removeprefix("python")
ARCHITECTURE = ARCHITECTURES[platform.machine()]
IMAGE = f"public.ecr.aws/lambda/python:{PYTHON_VERSION}-{ARCHITECTURE}"
# One for each function: an invocation takes seconds, and test_lambda_runtime has them all.
EVENTS = [
    ROOT / "events" / f"{name}.json"
    for name in (
        *("api.health", "authorize.bearer", "chat.chat", "dispatch.messages"),
        *("run_batch.batch", "give_back.unavailable", "ping.schedule"),
    )
]
PULL_TIMEOUT_S = 120


@pytest.fixture(scope="module")
def docker_host() -> str:
    """The address under which containers see this machine."""
    if shutil.which("docker") is None:
        pytest.skip("there is no docker command here")
    if not succeeds("docker", "info"):
        pytest.skip("the Docker daemon does not run")
    if not (succeeds("docker", "image", "inspect", IMAGE) or succeeds("docker", "pull", IMAGE)):
        pytest.skip(f"{IMAGE} is not here and cannot be pulled")
    wanted = "{{(index .IPAM.Config 0).Subnet}}"
    command = ["docker", "network", "inspect", "bridge", "--format", wanted]
    subnet = ipaddress.ip_network(subprocess.check_output(command, text=True).strip())
    return str(next(subnet.hosts()))


def succeeds(*command: str) -> bool:
    result = subprocess.run(command, capture_output=True, check=False, timeout=PULL_TIMEOUT_S)
    return result.returncode == 0


@pytest.fixture(scope="module")
def invoke(
    docker_host: str, stack: Stack, triton: Worker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Invoke]:
    """The application built for its own Python, and a way for containers to what it needs."""
    directory = tmp_path_factory.mktemp("local")
    template = sam.build(directory / "build", PYTHON_VERSION)
    variables = directory / "variables.json"
    environments = {
        logical_id(function): {
            "AWS_ENDPOINT_URL": f"http://{docker_host}:{stack.emulator.port}",
            **{
                key: value.replace("127.0.0.1", docker_host)
                for key, value in stack.environment(function).items()
            },
        }
        for function in FUNCTIONS
    }
    stack.new_key("acme", text=SAMPLE_KEY)
    variables.write_text(json.dumps(environments))
    triton_port = int(triton.grpc_address.rpartition(":")[2])
    with ExitStack() as relays:
        for port in (stack.emulator.port, triton_port):
            relays.enter_context(relay(docker_host, port))
        yield Invoke(template, variables)


class Invoke:
    """Runs `sam local invoke`."""

    def __init__(self, template: Path, variables: Path) -> None:
        self._options = [
            *("--template-file", str(template), "--env-vars", str(variables), "--skip-pull-image"),
            # Without the web adapter, whose layer is at AWS.
            *("--parameter-overrides", "Stage=local", f"Architecture={ARCHITECTURE}"),
            "EngineUrl=unused:1",
        ]

    def __call__(self, function: str, event: Path) -> Any:
        output = sam.sam(
            *("local", "invoke", function, "--event", str(event)), *self._options, env=CREDENTIALS
        )
        result = json.loads(output.strip().splitlines()[-1])
        assert "errorType" not in result, result
        return result


@pytest.mark.parametrize("event", EVENTS, ids=lambda path: path.stem)
def test_sam_local_invokes_the_function(invoke: Invoke, event: Path) -> None:
    function = logical_id(event.name.split(".")[0])

    answer = invoke(function, event)

    assert answer.get("statusCode", 200) == 200, answer
    assert not answer.get("unhealthy"), answer
