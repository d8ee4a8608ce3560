"""A Triton model that answers with its input: for tests, and to measure everything around a model.

With the parameter `test_hooks` set to "true" an item may misbehave: `!fail` fails its whole
request, `!sleep:MILLISECONDS` takes that long, `!crash` ends the backend's process.
"""

import json
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from synapse_worker.backends.lifeline import die_with_parent
from synapse_worker.backends.parameters import model_parameters

CRASH_EXIT_CODE = 70


class TritonPythonModel:
    """The interface that Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Find out whether items may misbehave."""
        die_with_parent()
        parameters = model_parameters(json.loads(args["model_config"]))
        self._test_hooks = parameters.get("test_hooks") == "true"

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request, in order."""
        batch = [_items(request) for request in requests]
        if self._test_hooks:
            _sleep_or_crash(batch)
        return [self._respond(items) for items in batch]

    def _respond(self, items: Any) -> Any:
        if self._test_hooks and _asked_to_fail(items):
            error = pb_utils.TritonError("an item asked to fail")
            return pb_utils.InferenceResponse(error=error)
        return pb_utils.InferenceResponse([pb_utils.Tensor("text_output", items)])


def _items(request: Any) -> Any:
    return pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()


def _asked_to_fail(items: Any) -> bool:
    return any(item.startswith(b"!fail") for item in items.reshape(-1))


def _sleep_or_crash(batch: Iterable[Any]) -> None:
    """Everything that Triton batched together takes the time of the slowest, as on a device."""
    longest_ms = 0.0
    for item in (item for items in batch for item in items.reshape(-1)):
        if item.startswith(b"!crash"):
            os._exit(CRASH_EXIT_CODE)
        if item.startswith(b"!sleep:"):
            longest_ms = max(longest_ms, float(item.removeprefix(b"!sleep:").split()[0]))
    time.sleep(longest_ms / 1000)
