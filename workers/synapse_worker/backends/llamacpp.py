"""A Triton model over llama.cpp with the tensors of Triton's vLLM backend.

A thread per running completion, as many as the engine has slots; what does not fit waits in the
pool's queue. Everything that costs time happens in the engine, without the interpreter's lock.
"""

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from synapse_worker.backends.generation import FLAGS, TOKEN_IDS, Generation, read_generation
from synapse_worker.backends.lifeline import die_with_parent
from synapse_worker.backends.llama_engine import EngineSettings, LlamaEngine
from synapse_worker.backends.parameters import model_parameters
from synapse_worker.deltas import Delta, DeltaReader, cumulative_logprob, merge, vllm_logprobs
from synapse_worker.errors import InvalidRequest

# Asking Triton whether a caller is still there takes messages between two processes. At ten a
# second for each of eight answers it took a tenth of the machine; now it is ten for all together.
MIN_CANCEL_CHECK_INTERVAL_S = 0.25
CANCEL_CHECKS_PER_S = 10.0
INPUTS = (
    "text_input",
    TOKEN_IDS,
    "stream",
    "sampling_parameters",
    "exclude_input_in_output",
    *FLAGS,
)
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class Cancelled(Exception):
    """The caller has gone."""


class TritonPythonModel:
    """The interface that Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load and warm the model; raising here makes Triton refuse to serve it."""
        die_with_parent()
        config = json.loads(args["model_config"])
        settings = EngineSettings.from_parameters(model_parameters(config))
        self._engine = LlamaEngine(settings)
        self._pool = ThreadPoolExecutor(settings.slots, thread_name_prefix="slot")
        self._running = _Running()

    def execute(self, requests: Sequence[Any]) -> None:
        """Hand each request to a thread; answers go through its response sender."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                generation = read_generation(_tensors(request), request.parameters())
            except InvalidRequest as error:
                _send_error(sender, f"invalid request: {error}", pb_utils.TritonError.INVALID_ARG)
            else:
                self._pool.submit(_serve, self._engine, self._running, generation, sender)

    def finalize(self) -> None:
        """Triton has waited for what was running; what still waits has no caller any more."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _tensors(request: Any) -> dict[str, Any]:
    tensors = {}
    for name in INPUTS:
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        if tensor is not None:
            values = tensor.as_numpy().reshape(-1)
            if name == TOKEN_IDS:
                tensors[name] = values
            elif values.size:
                tensors[name] = values[0]
    return tensors


class _Running:
    """How many completions run, and so how often each may ask for its caller."""

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1

    @property
    def cancel_check_interval_s(self) -> float:
        return max(MIN_CANCEL_CHECK_INTERVAL_S, self._count / CANCEL_CHECKS_PER_S)


def _serve(engine: LlamaEngine, running: _Running, generation: Generation, sender: Any) -> None:
    """Run one completion to its end, whatever that is: without one its caller would hang."""
    try:
        with running:
            _Completion(running, generation, sender).run(engine)
    except InvalidRequest as error:
        _send_error(sender, f"invalid request: {error}", pb_utils.TritonError.INVALID_ARG)
    except Cancelled:
        _send_error(sender, "request was cancelled", pb_utils.TritonError.CANCELLED)
    except Exception as error:  # noqa: BLE001 - told to the caller, who decides about a retry
        _send_error(sender, f"engine failed: {error}", pb_utils.TritonError.UNAVAILABLE)


class _Completion:
    """One completion on its way from the engine to the response sender."""

    def __init__(self, running: _Running, generation: Generation, sender: Any) -> None:
        self._running = running
        self._generation = generation
        self._sender = sender
        self._reader = DeltaReader()
        self._held: list[Delta] = []
        self._failure: Exception | None = None
        self._next_check_s = 0.0
        self._cumulative_logprob = 0.0

    def run(self, engine: LlamaEngine) -> None:
        self._stop_if_cancelled()
        engine.check_constraint(self._generation.engine_request)
        engine.complete(self._generation.engine_request, self._on_piece)
        if self._failure is not None:
            raise self._failure
        if not self._held or self._held[-1].finish_reason is None:
            raise RuntimeError("the engine ended without a result")
        self._send(merge(self._held))

    def _on_piece(self, piece: str) -> bool:
        """Called by the engine; an exception must not cross it, so it is kept for later."""
        try:
            self._take(self._reader.read(piece))
            self._stop_if_cancelled()
        except Exception as error:  # noqa: BLE001 - raised again by run
            self._failure = error
            return True
        return False

    def _take(self, delta: Delta) -> None:
        self._held.append(delta)
        if self._generation.stream and delta.text and delta.finish_reason is None:
            self._send(merge(self._held))
            self._held.clear()

    def _stop_if_cancelled(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_check_s:
            self._next_check_s = now_s + self._running.cancel_check_interval_s
            if self._sender.is_cancelled():
                raise Cancelled

    def _send(self, delta: Delta) -> None:
        response = pb_utils.InferenceResponse(output_tensors=self._outputs(delta))
        self._sender.send(response, flags=FINAL if delta.finish_reason else 0)

    def _outputs(self, delta: Delta) -> list[Any]:
        generation, wanted = self._generation, self._generation.wanted
        text = f"{generation.prompt}{delta.text}" if generation.echo_prompt else delta.text
        outputs = [_bytes_tensor("text_output", text)]
        if "return_finish_reason" in wanted:
            outputs.append(_bytes_tensor("finish_reason", str(delta.finish_reason)))
        if "return_num_input_tokens" in wanted:
            outputs.append(_tensor("num_input_tokens", delta.prompt_tokens, np.uint32))
        if "return_num_output_tokens" in wanted:
            outputs.append(_tensor("num_output_tokens", delta.new_tokens, np.uint32))
        if "return_num_cached_tokens" in wanted and delta.finish_reason:
            outputs.append(_tensor("num_cached_tokens", delta.cached_tokens, np.uint32))
        if "return_cumulative_logprob" in wanted:
            self._cumulative_logprob += cumulative_logprob(delta)
            outputs.append(_tensor("cumulative_logprob", self._cumulative_logprob, np.float32))
        if "return_logprobs" in wanted:
            found = vllm_logprobs(delta, generation.logprobs) if delta.logprobs else None
            outputs.append(_bytes_tensor("logprobs", json.dumps(found)))
        return outputs


def _bytes_tensor(name: str, text: str) -> Any:
    return pb_utils.Tensor(name, np.array([text.encode()], dtype=np.object_))


def _tensor(name: str, value: float, dtype: Any) -> Any:
    return pb_utils.Tensor(name, np.array([value], dtype=dtype))


def _send_error(sender: Any, message: str, code: int) -> None:
    error = pb_utils.TritonError(message, code)
    sender.send(pb_utils.InferenceResponse(error=error), flags=FINAL)
