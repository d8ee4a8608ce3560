"""One deployment for all end-to-end tests: a worker, an emulator, and the template in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import sam
from tests.e2e.emulator import Emulator, emulator
from tests.e2e.hooks import Hooks, receiving
from tests.e2e.stack import FLEET, FUNCTIONS, STACK, RevokedKey, Stack, logical_id
from tests.e2e.worker import Worker, worker
from tests.user_pool import UserPool, new_pool


@pytest.fixture(scope="package")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with worker(tmp_path_factory.mktemp("worker")) as running:
        yield running


@pytest.fixture(scope="package")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with emulator(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture(scope="package")
def built(aws: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The application's template, built for the emulator's Python."""
    return sam.build(tmp_path_factory.mktemp("build"), sam.python_version(aws.python))


@pytest.fixture(scope="package")
def hooks() -> Iterator[Hooks]:
    """The one receiver of webhooks that the deployed application may reach."""
    with receiving() as running:
        yield running


@pytest.fixture(scope="package")
def people(aws: Emulator) -> UserPool:
    """Who may log in to the deployed application."""
    return new_pool(aws.session.client("cognito-idp", endpoint_url=aws.url))


@pytest.fixture(scope="package")
def stack(deployed: Stack, revoked: RevokedKey) -> Stack:
    """The application; a key has been used and revoked, and its minute passes meanwhile."""
    return deployed


@pytest.fixture(scope="package")
def revoked(deployed: Stack) -> RevokedKey:
    """A key that was let in, and then revoked."""
    return deployed.use_and_revoke_a_key()


@pytest.fixture(scope="package")
def deployed(
    request: pytest.FixtureRequest,
    aws: Emulator,
    triton: Worker,
    built: Path,
    hooks: Hooks,
    people: UserPool,
) -> Iterator[Stack]:
    """The application, built and deployed as a user would, in front of the worker."""
    parameters = {
        "EngineUrl": triton.grpc_address,
        "EngineAccelerator": "cpu",
        "WebhookAllow": hooks.place,
        "UserPool": people.issuer,
        "UserPoolClientId": people.client_id,
        "OidcJwksUrl": f"{aws.url}/{people.id}/.well-known/jwks.json",
    }
    sam.deploy(built, aws.url, STACK, parameters)
    deployed = Stack(aws)
    deployed.complete_api(built)
    yield deployed
    _keep_logs(request.session, deployed, built.parent)


@pytest.fixture(scope="package")
def fleet(request: pytest.FixtureRequest, aws: Emulator, built: Path) -> Iterator[Stack]:
    """The same application with every pool, no engine elsewhere, and its guards.

    But for the firewall: the emulator cannot put one before an API.
    """
    image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/synapse-worker@sha256:" + "0" * 64
    parameters = {
        **{f"{pool}ImageUri": image for pool in ("Cpu", "Gpu", "GpuEcs", "Neuron")},
        "GpuEcsModels": "echo",
        "KmsKey": "create",
        "UserPool": "create",
        "CorsOrigins": "https://app.example.com",
        "PoolIdleSeconds": "3",
        "ManageApiGatewayLogRole": "false",
    }
    sam.deploy(built, aws.url, FLEET, parameters)
    deployed = Stack(aws, FLEET)
    deployed.complete_api(built)
    yield deployed
    _keep_logs(request.session, deployed, built.parent / FLEET)


def _keep_logs(session: pytest.Session, deployed: Stack, folder: Path) -> None:
    """The emulator forgets them, and whoever looks into a failed test needs them.

    To read them all takes half a minute, which is spared where none failed.
    """
    if not session.testsfailed:
        return
    folder.mkdir(exist_ok=True)
    for function in FUNCTIONS:
        if f"{logical_id(function)}Arn" in deployed.outputs:
            (folder / f"{function}.log").write_text("\n".join(deployed.log(function)))
