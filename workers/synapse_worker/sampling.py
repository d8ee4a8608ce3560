"""Turns vLLM's sampling parameters into a llama.cpp completion request. Pure.

vLLM's names, defaults and order of samplers, because that is what a caller of the worker contract
relies on, whichever engine is behind it. A parameter that cannot be honoured is an error that
names it: dropping it silently would answer a different question.
"""

from collections.abc import Callable, Mapping
from typing import Any

from synapse_worker.errors import InvalidRequest
from synapse_worker.structured import constraint

DEFAULT_MAX_TOKENS = 16
MAX_TOKENS = 2**31 - 1
MAX_LOGPROBS = 20
MAX_STOPS = 32
SEEDS = 2**32 - 1
"""How many llama.cpp tells apart: the one after them is its word for a random one."""

LEAST_TEMPERATURE = 1e-5
"""Any below counts as 0, as in vLLM: the numbers would become infinite."""

WHOLE_CONTEXT = -1
# llama.cpp applies its samplers in another order by default; vLLM scales by temperature first.
SAMPLED = ["penalties", "temperature", "min_p", "top_k", "top_p"]
GREEDY = ["penalties", "top_k"]

Parameters = Mapping[str, Any]
Request = dict[str, Any]

# Accepted only when they ask for what happens anyway.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1, None),
    "best_of": (1, None),
    "bad_words": ([], None),
    "detokenize": (True, None),
    "include_stop_str_in_output": (False, None),
    "length_penalty": (1, None),
    "lora_name": (None,),
    "prompt_logprobs": (None,),
    "skip_special_tokens": (True, None),
    "spaces_between_special_tokens": (True, None),
    "stop_token_ids": ([], None),
    "truncate_prompt_tokens": (None,),
    "use_beam_search": (False, None),
}
STRUCTURED = (
    "guided_decoding",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
)


def to_llamacpp(parameters: Parameters) -> Request:
    """The body of a llama.cpp completion, without its prompt."""
    for name, value in parameters.items():
        _refuse_unknown(name, value)
    forced = _forced_length(parameters)
    request = _length(parameters) | _choice_of_token(parameters) | _penalties(parameters)
    request |= constraint({name: parameters[name] for name in STRUCTURED if name in parameters})
    stops = _stops(parameters.get("stop"))
    if stops and not forced:
        request["stop"] = stops
        if "logprobs" in request:
            # The text of a chosen token is then known only from among the likeliest.
            request["logprobs"] = MAX_LOGPROBS
    if forced or _boolean("ignore_eos", parameters.get("ignore_eos")):
        request["ignore_eos"] = True
    return request


def _refuse_unknown(name: str, value: Any) -> None:
    if name in NEUTRAL:
        if value not in NEUTRAL[name]:
            raise InvalidRequest(
                f"sampling parameter '{name}' supports only {NEUTRAL[name][0]!r} on this engine"
            )
    elif name not in SUPPORTED:
        raise InvalidRequest(f"sampling parameter '{name}' is not supported by this engine")


def _length(parameters: Parameters) -> Request:
    wanted = parameters.get("max_tokens", DEFAULT_MAX_TOKENS)
    if wanted is None:  # vLLM: until the context is full
        return {"max_tokens": WHOLE_CONTEXT}
    check = _between(1, MAX_TOKENS)
    return {"max_tokens": _integer("max_tokens", wanted, check, f"1 to {MAX_TOKENS}")}


def _forced_length(parameters: Parameters) -> bool:
    """Whether neither the end token nor a stop string may end it before `max_tokens`."""
    least = _integer("min_tokens", parameters.get("min_tokens") or 0, lambda v: v >= 0, "0 or more")
    if least not in (0, _length(parameters)["max_tokens"]):
        raise InvalidRequest("'min_tokens' supports only 0 or the value of 'max_tokens'")
    return least > 0


def _choice_of_token(parameters: Parameters) -> Request:
    read = _Reader(parameters)
    request: Request = {"logit_bias": _logit_bias(parameters.get("logit_bias"))}
    seed = parameters.get("seed")
    if seed is not None and seed != -1:
        request["seed"] = _integer("seed", seed, lambda _: True, "an integer") % SEEDS
    logprobs = parameters.get("logprobs")
    if logprobs is not None:
        check = _between(0, MAX_LOGPROBS)
        # 0 asks for the chosen token alone, which llama.cpp gives with the best one.
        request["logprobs"] = max(1, _integer("logprobs", logprobs, check, f"0 to {MAX_LOGPROBS}"))
    temperature = read.number("temperature", 1.0, lambda v: v >= 0, "0 or more")
    top_p = read.number("top_p", 1.0, lambda v: 0 < v <= 1, "above 0 and at most 1")
    min_p = read.number("min_p", 0.0, _between(0, 1), "0 to 1")
    top_k = parameters.get("top_k")
    top_k = _integer("top_k", -1 if top_k is None else top_k, lambda v: v >= -1, "-1 or more")
    if temperature < LEAST_TEMPERATURE:
        return request | {"temperature": 0.0, "top_k": 1, "samplers": GREEDY}
    return request | {
        "temperature": temperature,
        "top_p": top_p,
        "min_p": min_p,
        "top_k": max(top_k, 0),
        "samplers": SAMPLED,
    }


def _penalties(parameters: Parameters) -> Request:
    read = _Reader(parameters)
    presence = read.number("presence_penalty", 0.0, _between(-2, 2), "-2 to 2")
    frequency = read.number("frequency_penalty", 0.0, _between(-2, 2), "-2 to 2")
    repetition = read.number("repetition_penalty", 1.0, lambda v: v > 0, "above 0")
    if (presence, frequency, repetition) == (0.0, 0.0, 1.0):
        return {"repeat_last_n": 0}
    # How far back they count is the engine's default: all that a slot holds.
    return {
        "presence_penalty": presence,
        "frequency_penalty": frequency,
        "repeat_penalty": repetition,
    }


def _stops(value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise InvalidRequest("'stop' must be a non-empty string or a list of them")
    if len(stops) > MAX_STOPS:
        raise InvalidRequest(f"'stop' holds at most {MAX_STOPS} strings")
    return stops


def _logit_bias(value: Any) -> list[list[float]]:
    if value is None:
        return []
    if not isinstance(value, dict):
        raise InvalidRequest("'logit_bias' must map token ids to numbers")
    check = _between(-100, 100)
    return [
        [
            _integer("logit_bias", token, lambda v: v >= 0, "token ids"),
            _number("logit_bias", bias, check, "-100 to 100"),
        ]
        for token, bias in value.items()
    ]


def _between(low: float, high: float) -> Callable[[float], bool]:
    return lambda value: low <= value <= high


class _Reader:
    """Reads optional numbers; None means absent, as in vLLM."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters

    def number(
        self, name: str, default: float, check: Callable[[float], bool], expected: str
    ) -> float:
        value = self._parameters.get(name)
        return default if value is None else _number(name, value, check, expected)


def _number(name: str, value: Any, check: Callable[[float], bool], expected: str) -> float:
    # Request parameters of Triton may come as text: its own vLLM client sends "0.1".
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InvalidRequest(f"'{name}' must be {expected}")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"'{name}' must be {expected}") from None
    if not check(number) or number - number != 0:  # the latter is true of infinities and NaN
        raise InvalidRequest(f"'{name}' must be {expected}")
    return number


def _integer(name: str, value: Any, check: Callable[[int], bool], expected: str) -> int:
    # Not by way of float: a 64-bit seed would lose its last digits.
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            raise InvalidRequest(f"'{name}' must be {expected}") from None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not check(value):
        raise InvalidRequest(f"'{name}' must be {expected}")
    return value


def _boolean(name: str, value: Any) -> bool:
    if value is None or value is False or value == "false":
        return False
    if value is True or value == "true":
        return True
    raise InvalidRequest(f"'{name}' must be true or false")


SUPPORTED = frozenset(
    {
        "max_tokens",
        "min_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "stop",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "ignore_eos",
        "logit_bias",
        "logprobs",
        *STRUCTURED,
    }
)
