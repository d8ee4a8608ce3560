from typing import Any

import numpy as np
import pytest

from synapse_worker.backends.generation import read_generation
from synapse_worker.errors import InvalidRequest

PROMPT = {"text_input": "Grüße 🎉".encode()}


def test_a_bare_prompt_is_answered_whole_and_echoed_as_by_vllm() -> None:
    generation = read_generation(PROMPT, "")

    assert generation.prompt == "Grüße 🎉"
    assert (generation.stream, generation.echo_prompt) == (False, True)
    assert generation.engine_request["max_tokens"] == 16


def test_a_stream_never_echoes() -> None:
    assert not read_generation({**PROMPT, "stream": True}, "").echo_prompt
    with pytest.raises(InvalidRequest, match="exclude_input_in_output"):
        read_generation({**PROMPT, "stream": True, "exclude_input_in_output": False}, "")


def test_the_tensor_of_parameters_wins_over_the_requests() -> None:
    given = {**PROMPT, "sampling_parameters": b'{"max_tokens": 3}'}

    assert read_generation(given, '{"max_tokens": 9}').engine_request["max_tokens"] == 3
    assert read_generation(PROMPT, '{"max_tokens": 9}').engine_request["max_tokens"] == 9


def test_a_request_tells_its_priority_besides_its_sampling_parameters() -> None:
    given = {**PROMPT, "sampling_parameters": b'{"max_tokens": 3}'}

    assert read_generation(given, '{"request_priority": -1}').priority == -1
    assert read_generation(PROMPT, '{"request_priority": 1, "max_tokens": 9}').priority == 1
    assert read_generation(PROMPT, "").priority == 0
    with pytest.raises(InvalidRequest, match="request_priority"):
        read_generation(PROMPT, '{"request_priority": "gold"}')


def test_a_cumulative_logprob_needs_logprobs_from_the_engine() -> None:
    given = {**PROMPT, "return_cumulative_logprob": True}

    assert read_generation(given, "").engine_request["logprobs"] == 1
    assert read_generation(given, '{"logprobs": 5}').engine_request["logprobs"] == 5


def test_a_prompt_may_be_token_ids_which_nobody_can_echo() -> None:
    ids = {"prompt_token_ids": np.array([1, 2, 3], dtype=np.int32)}

    assert read_generation({**ids, "exclude_input_in_output": True}, "").prompt == [1, 2, 3]
    with pytest.raises(InvalidRequest, match="exclude_input_in_output"):
        read_generation(ids, "")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "either 'text_input' or 'prompt_token_ids'"),
        ({**PROMPT, "prompt_token_ids": np.array([1])}, "either 'text_input' or"),
        ({"text_input": b""}, "empty"),
        ({"text_input": b"\xff\xfe"}, "UTF-8"),
        ({**PROMPT, "sampling_parameters": b"{"}, "not JSON"),
        ({**PROMPT, "sampling_parameters": b"[]"}, "JSON object"),
    ],
)
def test_what_cannot_be_read_is_refused(tensors: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read_generation(tensors, "")
