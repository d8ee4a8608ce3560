"""What a request of the vLLM backend's contract asks for, read from its tensors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from synapse_worker.backends.parameters import REQUEST_PRIORITY, request_priority
from synapse_worker.errors import InvalidRequest
from synapse_worker.sampling import to_llamacpp

FLAGS = (
    "return_finish_reason",
    "return_cumulative_logprob",
    "return_logprobs",
    "return_num_input_tokens",
    "return_num_output_tokens",
    # Not of vLLM's backend: callers send it only to workers known to have it.
    "return_num_cached_tokens",
)
TOKEN_IDS = "prompt_token_ids"


@dataclass(frozen=True)
class Generation:
    """One request, checked."""

    prompt: str | list[int]
    stream: bool
    echo_prompt: bool
    wanted: frozenset[str]
    logprobs: int
    engine_request: Mapping[str, Any]
    priority: int = 0


def read_generation(tensors: Mapping[str, Any], parameters: str) -> Generation:
    """From first elements of the input tensors, and all token ids.

    `parameters` is used without the tensor for it.
    """
    prompt = _prompt(tensors)
    stream = bool(tensors.get("stream", False))
    exclude = tensors.get("exclude_input_in_output")
    if stream and exclude is not None and not exclude:
        raise InvalidRequest("when streaming, 'exclude_input_in_output' = false is not allowed")
    echo_prompt = not stream and not exclude
    if echo_prompt and not isinstance(prompt, str):
        raise InvalidRequest(f"with '{TOKEN_IDS}', 'exclude_input_in_output' must be true")
    sampling = _sampling_parameters(tensors, parameters)
    request = to_llamacpp(sampling)
    wanted = frozenset(flag for flag in FLAGS if tensors.get(flag))
    if "return_cumulative_logprob" in wanted:
        request.setdefault("logprobs", 1)
    return Generation(
        prompt=prompt,
        stream=stream,
        echo_prompt=echo_prompt,
        wanted=wanted,
        logprobs=int(sampling.get("logprobs") or 0),
        # Progress makes pieces arrive while the prompt is read, which is when to notice a
        # cancelled caller; timings carry the token counts.
        engine_request={
            **request,
            "prompt": prompt,
            "return_progress": True,
            "timings_per_token": True,
        },
        priority=request_priority(parameters),
    )


def _prompt(tensors: Mapping[str, Any]) -> str | list[int]:
    ids = tensors.get(TOKEN_IDS)
    if (ids is None) == ("text_input" not in tensors):
        raise InvalidRequest(f"either 'text_input' or '{TOKEN_IDS}' is needed")
    if ids is not None:
        return [int(token) for token in ids]
    prompt = _text(tensors, "text_input")
    if not prompt:
        raise InvalidRequest("'text_input' must not be empty")
    return prompt


def _text(tensors: Mapping[str, Any], name: str) -> str:
    value = tensors[name]
    if isinstance(value, str):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"'{name}' is not UTF-8") from None


def _sampling_parameters(tensors: Mapping[str, Any], parameters: str) -> dict[str, Any]:
    given = parameters
    if "sampling_parameters" in tensors:
        given = _text(tensors, "sampling_parameters")
    try:
        sampling = json.loads(given or "{}")
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidRequest(f"'sampling_parameters' is not JSON: {error}") from None
    if not isinstance(sampling, dict):
        raise InvalidRequest("'sampling_parameters' must be a JSON object")
    if "sampling_parameters" not in tensors:
        sampling.pop(REQUEST_PRIORITY, None)
    return sampling
