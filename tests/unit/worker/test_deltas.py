import json
from typing import Any

import pytest

from synapse_worker.deltas import (
    Delta,
    DeltaReader,
    EngineError,
    cumulative_logprob,
    merge,
    vllm_logprobs,
)
from synapse_worker.errors import InvalidRequest


def piece(text: str, predicted: int, finish: str | None = None, **more: Any) -> str:
    choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": finish, **more}
    timings = {"prompt_n": 3, "cache_n": 2, "predicted_n": predicted}
    return json.dumps({"choices": [choice], "timings": timings})


def test_tokens_are_counted_as_what_each_piece_adds() -> None:
    reader = DeltaReader()

    deltas = [reader.read(p) for p in (piece("", 0), piece("👩", 3), piece("", 5, "length"))]

    assert [d.new_tokens for d in deltas] == [0, 3, 2]
    assert [d.prompt_tokens for d in deltas] == [5, 5, 5]
    assert [d.cached_tokens for d in deltas] == [2, 2, 2]
    assert deltas[-1].finish_reason == "length"


def test_a_piece_without_timings_adds_no_tokens() -> None:
    reader = DeltaReader()
    reader.read(piece("a", 2))

    assert reader.read('{"choices": [{"text": "", "finish_reason": null}]}').new_tokens == 0


def test_merging_gives_the_whole_completion() -> None:
    entry = {"id": 1, "token": "a", "logprob": -1.0, "top_logprobs": []}
    merged = merge([Delta("a", 1, 4, 2, None, (entry,)), Delta("b", 2, 4, 2, "stop", (entry,))])

    assert merged == Delta("ab", 3, 4, 2, "stop", (entry, entry))
    assert cumulative_logprob(merged) == -2.0


def test_the_callers_mistakes_are_told_from_the_engines_failures() -> None:
    with pytest.raises(InvalidRequest, match="too long"):
        DeltaReader().read('{"error": {"code": 400, "message": "too long"}}')
    with pytest.raises(InvalidRequest, match="'prompt_token_ids' has ids that are not in"):
        DeltaReader().read('{"error": {"code": 400, "message": "Prompt contains invalid tokens"}}')
    with pytest.raises(EngineError, match="out of memory"):
        DeltaReader().read('{"error": {"code": 500, "message": "out of memory"}}')


def test_logprobs_take_the_shape_of_vllm_with_the_chosen_token_first() -> None:
    top = [{"id": 7, "token": "b", "logprob": -0.5}, {"id": 8, "token": "c", "logprob": -2.0}]
    chosen = {"id": 9, "token": "a", "logprob": -4.0, "top_logprobs": top}

    (entries,) = vllm_logprobs(Delta(logprobs=(chosen,)), wanted=1)

    assert list(entries.items()) == [
        ("9", {"logprob": -4.0, "rank": 3, "decoded_token": "a"}),
        ("7", {"logprob": -0.5, "rank": 1, "decoded_token": "b"}),
    ]


def test_a_character_of_several_tokens_is_told_whole_where_it_was_chosen() -> None:
    half = {"id": 7, "token": "\N{REPLACEMENT CHARACTER}", "logprob": -0.5}
    chosen = {"id": 7, "token": "👩", "logprob": -0.5, "top_logprobs": [half]}

    (entries,) = vllm_logprobs(Delta(logprobs=(chosen,)), wanted=1)

    assert entries == {"7": {"logprob": -0.5, "rank": 1, "decoded_token": "👩"}}


def test_a_token_that_was_held_back_as_the_beginning_of_a_stop_string_is_told_as_it_is() -> None:
    held = {"id": 7, "token": "\n", "logprob": -0.5}
    after = {"id": 8, "token": "The", "logprob": -1.0}
    chosen = (
        {"id": 7, "token": "", "logprob": -0.5, "top_logprobs": [held]},
        {"id": 8, "token": "\nThe", "logprob": -1.0, "top_logprobs": [held, after]},
    )

    first, second = vllm_logprobs(Delta(logprobs=chosen), wanted=1)

    assert first == {"7": {"logprob": -0.5, "rank": 1, "decoded_token": "\n"}}
    assert second == {
        "8": {"logprob": -1.0, "rank": 2, "decoded_token": "The"},
        "7": {"logprob": -0.5, "rank": 1, "decoded_token": "\n"},
    }
