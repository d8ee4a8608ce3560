"""What the `synapse` command loads, and when: each module takes its time from the first answer."""

from __future__ import annotations

import subprocess
import sys

import pytest

OF_AWS = ("boto3", "botocore.client", "botocore.session", "aws_xray_sdk", "synapse.adapters.aws")
OF_THE_OTHER_HALF = (
    *("aws_lambda_powertools", "grpc", "pydantic", "uvicorn"),
    *("argon2", "cryptography", "httpcore", "jinja2", "jwt", "numpy", "prometheus_client"),
    *("synapse.api", "synapse.application", "synapse.ports", "synapse.adapters.triton"),
)
OF_THOSE_WHO_ASK_FOR_IT = (
    *("argon2", "cryptography", "jwt"),  # logins and their tokens
    "jinja2",  # conversations
    "httpcore",  # webhooks
    "aws_lambda_powertools.event_handler.openapi.models",  # the OpenAPI document
    "numpy",
)


def loaded_by(statement: str) -> frozenset[str]:
    """The modules that a Python has which has done nothing but this."""
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return frozenset(done.stdout.split())


def parts_of(packages: tuple[str, ...], loaded: frozenset[str]) -> list[str]:
    return sorted(
        name
        for name in loaded
        if any(name == package or name.startswith(f"{package}.") for package in packages)
    )


@pytest.mark.parametrize("statement", ["import synapse_server.cli", "import synapse_server.serve"])
def test_a_command_and_what_starts_the_workers_load_nothing_of_the_server(statement: str) -> None:
    loaded = loaded_by(statement)

    assert statement.split()[1] in loaded
    assert parts_of((*OF_AWS, *OF_THE_OTHER_HALF), loaded) == []


def test_the_server_of_one_machine_loads_nothing_of_aws_and_nothing_before_it_is_needed() -> None:
    loaded = loaded_by("import synapse_server.front")

    assert parts_of(("synapse.api", "synapse.adapters.triton", "pydantic"), loaded)
    assert parts_of((*OF_AWS, *OF_THOSE_WHO_ASK_FOR_IT), loaded) == []
