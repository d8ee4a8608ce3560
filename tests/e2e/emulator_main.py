"""Starts MiniStack with two corrections; run by the Python of MiniStack's own environment.

- Lambda reports a failed invocation under the name of the exception's class, and the batcher's
  retries go by that name. MiniStack 1.5 reports every exception of a Python function as
  `Runtime.HandlerError`; the class is known only from the traceback in the log.
- SQS's batch calls need the right to the single call; there is no right `sqs:SendMessageBatch`.
"""

from __future__ import annotations

import re
from typing import Any

from ministack import app  # type: ignore[import-not-found]
from ministack.core import iam_actions  # type: ignore[import-not-found]
from ministack.services import lambda_svc  # type: ignore[import-not-found]

LAST_LINE = re.compile(r"^([\w.]+)(?::|$)", re.MULTILINE)

_execute = lambda_svc._execute_function_warm
_action_of = iam_actions.extract_iam_action


def execute_and_name_the_error(func: dict[str, Any], event: Any, request_id: str) -> dict[str, Any]:
    result: dict[str, Any] = _execute(func, event, request_id)
    body = result.get("body")
    if result.get("error") and isinstance(body, dict):
        name = error_name(str(result.get("log", "")))
        if body.get("errorType") == "Runtime.HandlerError" and name:
            body["errorType"] = name
    return result


def error_name(log: str) -> str:
    """The class named after the log's last traceback: `module.Class: message`."""
    _, marker, traceback = log.rpartition("Traceback (most recent call last):\n")
    names = LAST_LINE.findall(traceback) if marker else []
    return names[0].rpartition(".")[2] if names else ""


def action_of(*arguments: Any, **named: Any) -> str | None:
    action: str | None = _action_of(*arguments, **named)
    if action is not None and action.startswith("sqs:"):
        return action.removesuffix("Batch")
    return action


lambda_svc._execute_function_warm = execute_and_name_the_error
iam_actions.extract_iam_action = action_of

if __name__ == "__main__":
    app.main()
