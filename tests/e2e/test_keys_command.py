"""`synapse keys --stack`: the operator's way to the keys of a deployed stack."""

from __future__ import annotations

import os
import subprocess

from tests.e2e.emulator import CREDENTIALS
from tests.e2e.one_machine.running import SYNAPSE
from tests.e2e.stack import Stack
from tests.patience import PATIENCE_S


def synapse(stack: Stack, *arguments: str) -> str:
    """What the command prints, run as somebody who has rights in the account."""
    ran = subprocess.run(
        [str(SYNAPSE), *arguments, "--stack", stack.name],
        env={**os.environ, **CREDENTIALS, "AWS_ENDPOINT_URL": stack.emulator.url},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return ran.stdout.strip()


def test_a_key_that_the_command_makes_opens_the_deployed_door(stack: Stack) -> None:
    key = synapse(stack, "keys", "create", "a test", "--scopes", "inference", "--tenant", "acme")

    assert stack.call("GET", "/v1/models", api_key=key).status == 200
    assert stack.call("GET", "/metrics", api_key=key).status == 403
    assert key[7:19] in synapse(stack, "keys", "list", "--tenant", "acme")


def test_what_the_command_ends_before_its_use_never_opens_it(stack: Stack) -> None:
    key, rotated = (synapse(stack, "keys", "create", "a test") for _ in range(2))
    new = synapse(stack, "keys", "rotate", rotated[7:19], "--grace", "0s")

    synapse(stack, "keys", "revoke", key[7:19])

    answers = [stack.call("GET", "/v1/models", api_key=each) for each in (key, rotated, new)]
    assert [answer.status for answer in answers] == [401, 401, 200]


def test_keys_are_made_and_ended_through_the_deployed_api(stack: Stack) -> None:
    made = stack.call("POST", "/api/admin/keys", {"name": "a test", "tenant": "acme"}).json()
    path = f"/api/admin/keys/{made['id']}"

    rotated = stack.call("POST", f"{path}/rotate", {"grace_s": 0}).json()
    assert stack.call("GET", "/v1/models", api_key=rotated["key"]).status == 200
    assert stack.call("GET", "/v1/models", api_key=made["key"]).status == 401
    assert stack.call("DELETE", path).json()["status"] == "revoked"
    foreign = stack.new_key("umbrella", scopes=frozenset({"admin"}))
    assert stack.call("DELETE", path, api_key=foreign).status == 404
    assert made["id"] in synapse(stack, "keys", "list", "--tenant", "acme")


def test_limits_of_a_tenant_are_set_through_the_deployed_api(stack: Stack) -> None:
    limits = {"limits": {"monthly_usd": 5}}

    assert stack.call("PUT", "/api/admin/tenants/acme", limits).status == 200

    assert "acme  monthly_usd 5" in synapse(stack, "tenants", "list")
