"""A Triton model that answers with its input: for tests, and to measure everything around a model.

With the parameter `delay_ms` each item takes that long in one of `slots` slots, without taking any
of the processor: a stand-in for an accelerator. `faults_file` names a file that may disturb that
while the model runs (see `timed.Faults`).

With the parameter `test_hooks` set to "true" an item may misbehave: `!fail` fails its whole
request, `!sleep:MILLISECONDS` takes that long, `!crash` ends the backend's process.
"""

import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from synapse_worker.backends.lifeline import die_with_parent
from synapse_worker.backends.load_metrics import LoadMetrics, LoadReporter
from synapse_worker.backends.parameters import model_parameters, request_priority
from synapse_worker.backends.timed import FaultsFile, TimedSlots, Work
from synapse_worker.errors import InvalidRequest

CRASH_EXIT_CODE = 70
DEFAULT_SLOTS = "1024"
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """The interface that Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Find out how long items take and whether they may misbehave."""
        die_with_parent()
        parameters = model_parameters(json.loads(args["model_config"]))
        self._test_hooks = parameters.get("test_hooks") == "true"
        self._delay_ms = float(parameters.get("delay_ms", "0"))
        faults_file = parameters.get("faults_file", "")
        self._slots: TimedSlots | None = None
        if self._delay_ms > 0 or faults_file:
            faults = FaultsFile(Path(faults_file) if faults_file else None)
            self._slots = TimedSlots(int(parameters.get("slots", DEFAULT_SLOTS)), faults.now)
            metrics = LoadMetrics(args, has_cache=False)
            self._reporter = LoadReporter(self._slots.load, metrics)

    def execute(self, requests: Sequence[Any]) -> list[Any] | None:
        """One response per request, in order; or none yet, where items take their time."""
        if self._slots is not None:
            for request in requests:
                self._start(self._slots, request)
            return None
        batch = [_items(request) for request in requests]
        if self._test_hooks:
            _sleep_or_crash(batch)
        return [self._respond(items) for items in batch]

    def finalize(self) -> None:
        """Triton has waited for what was running."""
        if self._slots is not None:
            self._reporter.close()
            self._slots.close()

    def _start(self, slots: TimedSlots, request: Any) -> None:
        items = _items(request)
        sender = request.get_response_sender()
        caller = _Caller(sender, lambda: self._respond(items))
        seconds = [self._milliseconds(item) / 1000 for item in items.reshape(-1)]
        try:
            priority = request_priority(request.parameters())
        except InvalidRequest as error:
            caller.fail(str(error))
        else:
            slots.start(Work(caller, seconds, priority))

    def _milliseconds(self, item: bytes) -> float:
        if not self._test_hooks:
            return self._delay_ms
        return max(self._delay_ms, _asked_ms(item))

    def _respond(self, items: Any) -> Any:
        if self._test_hooks and _asked_to_fail(items):
            error = pb_utils.TritonError("an item asked to fail")
            return pb_utils.InferenceResponse(error=error)
        return pb_utils.InferenceResponse([pb_utils.Tensor("text_output", items)])


class _Caller:
    """Whoever waits at the other end of a response sender."""

    def __init__(self, sender: Any, respond: Any) -> None:
        self._sender = sender
        self._respond = respond

    def is_gone(self) -> bool:
        return bool(self._sender.is_cancelled())

    def done(self) -> None:
        self._sender.send(self._respond(), flags=FINAL)

    def fail(self, message: str) -> None:
        error = pb_utils.TritonError(message)
        self._sender.send(pb_utils.InferenceResponse(error=error), flags=FINAL)


def _items(request: Any) -> Any:
    return pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()


def _asked_to_fail(items: Any) -> bool:
    return any(item.startswith(b"!fail") for item in items.reshape(-1))


def _sleep_or_crash(batch: Iterable[Any]) -> None:
    """Everything that Triton batched together takes the time of the slowest, as on a device."""
    longest_ms = max((_asked_ms(item) for items in batch for item in items.reshape(-1)), default=0)
    time.sleep(longest_ms / 1000)


def _asked_ms(item: bytes) -> float:
    if item.startswith(b"!crash"):
        os._exit(CRASH_EXIT_CODE)
    if item.startswith(b"!sleep:"):
        return float(item.removeprefix(b"!sleep:").split()[0])
    return 0.0
