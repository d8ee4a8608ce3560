"""The deployed application as a test sees it: its API, its outputs, its jobs."""

from __future__ import annotations

import asyncio
import json
import random
import string
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from synapse.adapters.aws.keys import DynamoKeyStore
from synapse.domain.access import ALL_SCOPES, DEFAULT_TENANT
from synapse.domain.api_key import ID_LENGTH, PREFIX, SECRET_LENGTH, ApiKey, digest, key_id_of
from tests.e2e.daemon import ROOT
from tests.e2e.emulator import Emulator
from tests.infra.translation import gateway_responses, translated
from tests.patience import PATIENCE_S

STACK = "synapse-local"
FLEET = "synapse-fleet"
"""The stack with every pool switched on."""
STAGE = "local"
FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/handler.py"))
FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "EXPIRED"})


def logical_id(function: str) -> str:
    """The template's name of the function in that folder of `functions/`."""
    return "".join(part.capitalize() for part in function.split("_")) + "Function"


def new_key_text() -> str:
    """A key that nobody has yet."""
    letters = string.ascii_letters + string.digits
    return PREFIX + "".join(random.choices(letters, k=ID_LENGTH + SECRET_LENGTH))


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class RevokedKey:
    """A key that was let in last at that time of the monotonic clock, and revoked thereafter."""

    text: str
    used_at: float


@dataclass(frozen=True)
class Stack:
    """What `sam deploy` made."""

    emulator: Emulator
    name: str = STACK

    @cached_property
    def outputs(self) -> dict[str, str]:
        client = self.emulator.session.client("cloudformation", endpoint_url=self.emulator.url)
        outputs = client.describe_stacks(StackName=self.name)["Stacks"][0]["Outputs"]
        return {output["OutputKey"]: output["OutputValue"] for output in outputs}

    @property
    def url(self) -> str:
        """The API's address for clients that set no Host header."""
        return f"{self.emulator.url}/restapis/{self.outputs['ApiId']}/{STAGE}/_user_request_"

    @cached_property
    def api_key(self) -> str:
        """A key that may do everything."""
        return self.new_key(scopes=ALL_SCOPES)

    def new_key(self, tenant: str = DEFAULT_TENANT, *, text: str = "", **rights: Any) -> str:
        """A key in the deployed table; `rights` are fields of `ApiKey`."""
        text = text or new_key_text()
        key_id = key_id_of(text)
        assert key_id is not None
        key = ApiKey(key_id, tenant, "a test", digest(text), time.time(), **rights)
        asyncio.run(self.keys.create(key))
        return text

    def change_key(self, text: str, **changes: Any) -> None:
        """Change a key that was made; whoever used it is remembered for a minute."""
        key_id = key_id_of(text)
        assert key_id is not None
        asyncio.run(self._change_key(key_id, changes))

    async def _change_key(self, key_id: str, changes: Mapping[str, Any]) -> None:
        key = await self.keys.get(key_id)
        assert key is not None
        assert await self.keys.replace(replace(key, revision=key.revision + 1, **changes))

    def use_and_revoke_a_key(self) -> RevokedKey:
        """A key that the API's gateway goes on letting in until it asks again."""
        text = self.new_key(scopes=ALL_SCOPES)
        answer = self.call("GET", "/v1/models", api_key=text)
        assert answer.status == 200, answer.body
        used_at = time.monotonic()
        self.change_key(text, revoked_at=time.time() - 1)
        return RevokedKey(text, used_at)

    @property
    def keys(self) -> DynamoKeyStore:
        return DynamoKeyStore(self.emulator.dynamodb, self.outputs["AccessTableName"])

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        api_key: str | None = "",
    ) -> Answer:
        """Call the API over HTTP; `api_key` None sends none, empty the stack's own."""
        sent = {"Host": f"{self.outputs['ApiId']}.execute-api.localhost:{self.emulator.port}"}
        if api_key is not None:
            sent["Authorization"] = f"Bearer {api_key or self.api_key}"
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.emulator.url}/{STAGE}{path}",
            method=method,
            data=data,
            headers={**sent, "Content-Type": "application/json", **(headers or {})},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                return Answer(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read())

    def submit(self, **fields: Any) -> str:
        """Submit a job; its id."""
        answer = self.call("POST", "/async-infer", fields)
        assert answer.status == 202, answer.body
        job_id: str = answer.json()["jobId"]
        return job_id

    def cancelled(self, prompt: str = "!sleep:4000 late") -> str:
        """A job that was cancelled before it was done; where the machine is busy some are not."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            job_id = self.submit(model="echo", prompt=prompt)
            answer = self.call("DELETE", f"/results/{job_id}")
            if answer.status == 200:
                return job_id
            assert answer.status == 409, answer.body
            assert time.monotonic() < deadline, "each was done before it could be cancelled"

    def result(self, job_id: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """Poll until the job has ended; its result."""
        deadline = time.monotonic() + timeout_s
        while True:
            answer = self.call("GET", f"/results/{job_id}?wait=5")
            assert answer.status == 200, answer.body
            result: dict[str, Any] = answer.json()
            if result["status"] in FINAL:
                return result
            assert time.monotonic() < deadline, f"the job has not ended: {result}"

    def invoke(self, function_output: str, event: Any) -> Any:
        """Invoke a function by the name of its ARN's output; what it returned."""
        answer = self.emulator.functions.invoke(
            FunctionName=self.outputs[function_output], Payload=json.dumps(event).encode()
        )
        payload = json.loads(answer["Payload"].read())
        assert not answer.get("FunctionError"), payload
        return payload

    def environment(self, function: str) -> dict[str, str]:
        """The variables of a function, by its folder."""
        config = self.emulator.functions.get_function_configuration(
            FunctionName=self.outputs[f"{logical_id(function)}Arn"]
        )
        return dict(config["Environment"]["Variables"])

    def log(self, function: str) -> list[str]:
        """What a function has logged so far, by its folder."""
        client = self.emulator.session.client("logs", endpoint_url=self.emulator.url)
        group = self.log_group(function)
        pages = client.get_paginator("filter_log_events").paginate(logGroupName=group)
        return [event["message"].rstrip() for page in pages for event in page["events"]]

    def log_group(self, function: str) -> str:
        """Where a function logs, by its folder."""
        return f"/aws/lambda/{self.name}-{function.replace('_', '-')}"

    def complete_api(self, template: Path) -> None:
        """Set what MiniStack leaves out of the template's API: its own errors."""
        client = self.emulator.session.client("apigateway", endpoint_url=self.emulator.url)
        api_id = self.outputs["ApiId"]
        for kind, response in gateway_responses(translated(template)).items():
            client.put_gateway_response(restApiId=api_id, responseType=kind, **response)
        client.create_deployment(restApiId=api_id, stageName=STAGE)
