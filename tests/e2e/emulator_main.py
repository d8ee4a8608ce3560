"""Starts MiniStack with one correction; run by the Python of MiniStack's own environment.

Lambda reports a failed invocation under the name of the exception's class, and the batcher's
retries go by that name. MiniStack 1.5 reports every exception of a Python function as
`Runtime.HandlerError`; the class is known only from the traceback in the log.
"""

from __future__ import annotations

import re
from typing import Any

from ministack import app  # type: ignore[import-not-found]
from ministack.services import lambda_svc  # type: ignore[import-not-found]

LAST_LINE = re.compile(r"^([\w.]+)(?::|$)", re.MULTILINE)

_execute = lambda_svc._execute_function_warm


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


lambda_svc._execute_function_warm = execute_and_name_the_error

if __name__ == "__main__":
    app.main()
