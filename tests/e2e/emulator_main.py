"""Starts MiniStack with corrections; run by the Python of MiniStack's own environment.

- Lambda reports what a function raises under the name of the exception's class, and the batcher's
  retries go by that name; the environment goes on with the next event. MiniStack 1.5 reports every
  exception of a Python function as `Runtime.HandlerError`, and ends its environment.
- SQS's batch calls need the right to the single call; there is no right `sqs:SendMessageBatch`.
- To see or change a service of ECS needs the right to it, not to its cluster.
- An integration that streams is called by another address. MiniStack knows the other one only, and
  answers whole.
- A template writes the slash of a binary media type as `~1`.
- What its CloudFormation lacks is in `emulator_cloudformation.py`.
- Layers are unpacked once, and not for each start of a function: `emulator_layers.py`.

With what the tests do to it: `emulator_faults.py`, `emulator_power.py`.
"""

from __future__ import annotations

import json
from typing import Any

import emulator_cloudformation  # type: ignore[import-not-found]
import emulator_faults  # type: ignore[import-not-found]
import emulator_layers  # type: ignore[import-not-found]
import emulator_power  # type: ignore[import-not-found]
from ministack import app  # type: ignore[import-not-found]
from ministack.core import iam_actions, lambda_runtime  # type: ignore[import-not-found]
from ministack.services import apigateway_v1, lambda_svc  # type: ignore[import-not-found]

RAISED = "_raised"
TELLS = """{"status": "error", "error": str(e), "trace": traceback.format_exc()}"""
TELLS_MORE = f"""{{
    "status": "ok",
    "result": {{"{RAISED}": [type(e).__name__, str(e), traceback.format_exc()]}},
}}"""
"""What MiniStack's program in an environment says of an exception: that all went well, and this."""

_execute = lambda_svc._execute_function_warm
_action_of = iam_actions.extract_iam_action
_resource_of = iam_actions.extract_resource_arn
_matches_type = apigateway_v1._media_type_matches
_function_of = apigateway_v1._extract_lambda_ref_from_integration_uri


def execute_and_name_the_error(func: dict[str, Any], event: Any, request_id: str) -> dict[str, Any]:
    result: dict[str, Any] = _execute(func, event, request_id)
    body = result.get("body")
    if not isinstance(body, dict) or RAISED not in body:
        return result
    name, message, trace = body[RAISED]
    return {
        "body": {"errorMessage": message, "errorType": name},
        "error": True,
        "log": "\n".join(filter(None, [result.get("log", ""), trace])),
    }


def action_of(*arguments: Any, **named: Any) -> str | None:
    action: str | None = _action_of(*arguments, **named)
    if action is not None and action.startswith("sqs:"):
        return action.removesuffix("Batch")
    return action


def resource_of(
    service: str, method: str, path: str, headers: Any, body: bytes, *more: Any, **named: Any
) -> Any:
    if service == "ecs" and body:
        asked = json.loads(body)
        named_services = [asked.get("service", ""), *asked.get("services", [])]
        arns = [arn for arn in named_services if arn.startswith("arn:")]
        if arns:
            return arns[0]
    return _resource_of(service, method, path, headers, body, *more, **named)


def function_of(uri: str) -> Any:
    return _function_of(uri.replace("/response-streaming-invocations", "/invocations"))


def matches_type(media_type: str, patterns: list[str]) -> Any:
    return _matches_type(media_type, [pattern.replace("~1", "/") for pattern in patterns])


apigateway_v1._media_type_matches = matches_type
apigateway_v1._extract_lambda_ref_from_integration_uri = function_of
lambda_svc._execute_function_warm = execute_and_name_the_error
assert TELLS in lambda_runtime._PYTHON_WORKER_SCRIPT
lambda_runtime._PYTHON_WORKER_SCRIPT = lambda_runtime._PYTHON_WORKER_SCRIPT.replace(
    TELLS, TELLS_MORE
)
iam_actions.extract_iam_action = action_of
iam_actions.extract_resource_arn = resource_of

emulator_cloudformation.register()
emulator_faults.install()
emulator_layers.install()
emulator_power.install()

if __name__ == "__main__":
    app.main()
