"""A Triton model over llama.cpp with the tensors of Triton's vLLM backend."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from synapse_worker.backends.completions import Cancelled, Completion, Completions
from synapse_worker.backends.generation import FLAGS, TOKEN_IDS, Generation, read_generation
from synapse_worker.backends.lifeline import die_with_parent
from synapse_worker.backends.llama_engine import EngineSettings, LlamaEngine
from synapse_worker.backends.load_metrics import LoadMetrics
from synapse_worker.backends.parameters import model_parameters
from synapse_worker.deltas import Delta, cumulative_logprob, vllm_logprobs
from synapse_worker.errors import InvalidRequest

INPUTS = (
    "text_input",
    TOKEN_IDS,
    "stream",
    "sampling_parameters",
    "exclude_input_in_output",
    *FLAGS,
)
STUCK_EXIT_CODE = 71
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """The interface that Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load and warm the model; raising here makes Triton refuse to serve it."""
        die_with_parent()
        config = json.loads(args["model_config"])
        parameters = model_parameters(config, folder=Path(args["model_repository"]))
        settings = EngineSettings.from_parameters(parameters)
        self._completions = Completions(
            LlamaEngine(settings),
            settings.slots,
            LoadMetrics(args, has_cache=True).tell,
            settings.slots * settings.context_per_slot,
            _end_stuck,
            settings.batch_tokens,
        )

    def execute(self, requests: Sequence[Any]) -> None:
        """Start what is asked for; answers go through each request's response sender."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                generation = read_generation(_tensors(request), request.parameters())
            except InvalidRequest as error:
                _send_error(sender, error)
            else:
                caller = _Caller(generation, sender)
                completion = Completion(
                    generation.engine_request,
                    caller,
                    in_parts=generation.stream,
                    priority=generation.priority,
                )
                self._completions.start(completion)

    def finalize(self) -> None:
        """Triton has waited for what was running."""
        self._completions.close()


def _end_stuck() -> None:
    """Triton still answers, so only a process that has ended is seen and started again."""
    sys.stderr.write("The engine writes for nobody any more: its process is ended\n")
    sys.stderr.flush()
    os._exit(STUCK_EXIT_CODE)


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


class _Caller:
    """Whoever waits at the other end of a response sender."""

    def __init__(self, generation: Generation, sender: Any) -> None:
        self._generation = generation
        self._sender = sender
        self._cumulative_logprob = 0.0

    def is_gone(self) -> bool:
        return bool(self._sender.is_cancelled())

    def send(self, delta: Delta) -> None:
        response = pb_utils.InferenceResponse(output_tensors=self._outputs(delta))
        self._sender.send(response, flags=FINAL if delta.finish_reason else 0)

    def fail(self, error: Exception) -> None:
        _send_error(self._sender, error)

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


def _send_error(sender: Any, error: Exception) -> None:
    match error:
        case InvalidRequest():
            message, code = f"invalid request: {error}", pb_utils.TritonError.INVALID_ARG
        case Cancelled():
            message, code = "request was cancelled", pb_utils.TritonError.CANCELLED
        case _:
            message, code = f"engine failed: {error}", pb_utils.TritonError.UNAVAILABLE
    response = pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))
    sender.send(response, flags=FINAL)
