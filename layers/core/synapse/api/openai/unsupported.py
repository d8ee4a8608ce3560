"""Parameters that cannot be honoured: refused by name, unless they ask for what happens anyway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from synapse.domain.errors import InvalidRequest
from synapse.domain.inference import ModelInput

CHANGES_NOTHING: Mapping[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "audio": (),
    "bad_words": ([],),
    "continue_final_message": (False,),
    "file": (),
    "function_call": ("none",),
    "functions": ([],),
    "image_url": (),
    "include_obfuscation": (False,),
    "include_stop_str_in_output": (False,),
    "input_audio": (),
    "length_penalty": (1, 1.0),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "priority": (0,),
    "prompt_cache_options": ({"mode": "implicit"}, {}),
    "prompt_cache_retention": ("in_memory", "in-memory"),
    "prompt_logprobs": (),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_token_ids": ([],),
    "store": (False,),
    "suffix": ("",),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""The values of each that change nothing, besides null."""

ALWAYS_SENT = ("max_tokens", "temperature", "top_p", "seed")
"""What clients send to any model, which one that makes one text of another has no use for."""

LEAVES_AS_IT_IS: Mapping[str, Any] = {
    **{"top_k": -1, "min_p": 0, "min_tokens": 0, "ignore_eos": False},
    **{"presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1},
}
"""The value of what else goes to an engine with which it writes as without it."""

INSTEAD = {
    "functions": "; give them as tools",
    "function_call": "; use tool_choice",
    "priority": "; use service_tier",
}


class UnsupportedParameter(InvalidRequest):
    """A known parameter that this deployment cannot honour."""

    code = "unsupported_parameter"


def refuse_unsupported(
    body: BaseModel,
    place: str = "",
    changes_nothing: Mapping[str, tuple[Any, ...]] = CHANGES_NOTHING,
    instead: Mapping[str, str] = INSTEAD,
) -> None:
    """Refuse a parameter of `body` that cannot be honoured; `place` is where the body stands.

    `changes_nothing` has those parameters and the values of each that are accepted, `instead` what
    the refusal of one says to do.

    Raises:
        UnsupportedParameter: there is one.
    """
    for name in body.model_fields_set & changes_nothing.keys():
        value = getattr(body, name)
        accepted = changes_nothing[name]
        # A boolean equals a number in Python, and nowhere else.
        if value is None or any(type(value) is type(one) and value == one for one in accepted):
            continue
        known = f" other than {_listed(accepted)}" if accepted else ""
        raise UnsupportedParameter(
            f"{place}{name}: is not supported{known}{instead.get(name, '')}", param=place + name
        )


def refuse_without_effect(value: ModelInput, form_from: str, model: str) -> None:
    """Refuse what a model that makes one text of another, all at once, could only ignore.

    `form_from` is the parameter that holds the answer to a form, if there is one.

    Raises:
        UnsupportedParameter: that is asked for.
    """
    given = [
        form_from if name == "structured_outputs" else name
        for name, wanted in value.parameters.items()
        if name not in ALWAYS_SENT and LEAVES_AS_IT_IS.get(name) != wanted
    ]
    if value.samples > 1:
        given.append("n")
    if given:
        raise UnsupportedParameter(
            f"{given[0]}: has no effect on model {model!r}, which makes one text of another",
            param=given[0],
        )


def _listed(values: tuple[Any, ...]) -> str:
    return " or ".join(dict.fromkeys(str(value).lower() or '""' for value in values[:1]))
