from typing import Any

import pytest

from synapse_worker.errors import InvalidRequest
from synapse_worker.sampling import GREEDY, SAMPLED, to_llamacpp


def test_defaults_are_those_of_vllm() -> None:
    assert to_llamacpp({}) == {
        "max_tokens": 16,
        "logit_bias": [],
        "temperature": 1.0,
        "top_p": 1.0,
        "min_p": 0.0,
        "top_k": 0,
        "samplers": SAMPLED,
        "repeat_last_n": 0,
    }


def test_temperature_zero_is_greedy_whatever_else_is_asked() -> None:
    request = to_llamacpp({"temperature": 0, "top_p": 0.5, "top_k": 40, "min_p": 0.2})

    assert request["samplers"] == GREEDY
    assert request["top_k"] == 1
    assert "top_p" not in request


def test_every_supported_parameter_reaches_the_engine() -> None:
    request = to_llamacpp(
        {
            "max_tokens": 7,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 5,
            "min_p": 0.1,
            "stop": ["a", "b"],
            "seed": 3,
            "presence_penalty": 1.0,
            "frequency_penalty": -1.0,
            "repetition_penalty": 1.2,
            "ignore_eos": True,
            "logit_bias": {"12": -100},
            "logprobs": 2,
        }
    )

    assert request == {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "samplers": SAMPLED,
        "stop": ["a", "b"],
        "seed": 3,
        "presence_penalty": 1.0,
        "frequency_penalty": -1.0,
        "repeat_penalty": 1.2,
        "ignore_eos": True,
        "logit_bias": [[12, -100.0]],
        "logprobs": 20,
    }


def test_with_a_stop_string_the_chosen_token_is_looked_for_among_the_most_likely() -> None:
    assert to_llamacpp({"logprobs": 2})["logprobs"] == 2
    assert to_llamacpp({"logprobs": 2, "stop": "a"})["logprobs"] == 20
    assert "logprobs" not in to_llamacpp({"stop": "a"})


@pytest.mark.parametrize("name", ["temprature", "messages", "prompt", "stream", "cache_prompt"])
def test_an_unknown_parameter_is_named(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"'{name}' is not supported"):
        to_llamacpp({name: 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("best_of", 3),
        ("bad_words", ["x"]),
        ("stop_token_ids", [2]),
        ("prompt_logprobs", 1),
        ("skip_special_tokens", False),
        ("include_stop_str_in_output", True),
        ("lora_name", "mine"),
    ],
)
def test_a_parameter_the_engine_cannot_honour_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"'{name}' supports only"):
        to_llamacpp({name: value})


def test_a_parameter_that_asks_for_what_happens_anyway_is_accepted() -> None:
    assert to_llamacpp({"n": 1, "skip_special_tokens": True, "bad_words": []}) == to_llamacpp({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", 1.5),
        ("max_tokens", "many"),
        ("max_tokens", True),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", "warm"),
        ("temperature", [1]),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", -2),
        ("min_p", 2),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("repetition_penalty", 0),
        ("stop", ""),
        ("stop", [1]),
        ("stop", {"a": 1}),
        ("stop", ["x"] * 33),
        ("seed", "abc"),
        ("logit_bias", [1]),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"1": 101}),
        ("logprobs", 21),
        ("ignore_eos", "perhaps"),
        ("min_tokens", 5),
        ("min_tokens", -1),
    ],
)
def test_a_bad_value_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=f"'{name}'"):
        to_llamacpp({name: value})


def test_numbers_may_come_as_text_as_tritons_vllm_client_sends_them() -> None:
    request = to_llamacpp({"temperature": "0.1", "max_tokens": "100", "seed": str(2**63 - 1)})

    assert (request["temperature"], request["max_tokens"]) == (0.1, 100)
    assert request["seed"] == (2**63 - 1) % (2**32 - 1)


def test_no_max_tokens_means_until_the_context_is_full() -> None:
    assert to_llamacpp({"max_tokens": None})["max_tokens"] == -1


def test_a_seed_of_minus_one_or_none_is_left_to_chance() -> None:
    assert "seed" not in to_llamacpp({"seed": -1})
    assert "seed" not in to_llamacpp({"seed": None})


def test_min_tokens_equal_to_max_tokens_lets_nothing_end_it_early() -> None:
    request = to_llamacpp({"min_tokens": 8, "max_tokens": 8, "stop": "x"})

    assert request["ignore_eos"] is True
    assert "stop" not in request


@pytest.mark.parametrize("seed", [2**32 - 1, 2**63 - 1, 2**64 - 1, -2, -(2**63)])
def test_no_seed_becomes_the_engines_random_one(seed: int) -> None:
    assert 0 <= to_llamacpp({"seed": seed})["seed"] < 2**32 - 1


@pytest.mark.parametrize("temperature", [1e-45, 1e-39, 9e-6])
def test_a_temperature_too_small_to_divide_by_is_greedy(temperature: float) -> None:
    assert to_llamacpp({"temperature": temperature}) == to_llamacpp({"temperature": 0})
    assert to_llamacpp({"temperature": 1e-5})["samplers"] == SAMPLED
