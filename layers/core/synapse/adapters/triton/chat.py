"""Conversations as the raw prompts that a model was trained on, by the model's own template."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

from synapse.adapters.triton.templates import RefusedByTemplate, compiled
from synapse.adapters.triton.variables import EFFORT, VARIABLES, variables_of
from synapse.domain.errors import EngineError, InvalidInput
from synapse.domain.extension import Extension
from synapse.domain.inference import ChatMessage, TextOrTokens, ToolCall
from synapse.domain.model import ModelSpec
from synapse.ports import InferenceRequest

Tool = Mapping[str, object]

NO_VARIABLES: Mapping[str, object] = {}

NO_TOKEN_IDS = "prompt: this model takes no token ids; send text"

ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

# Words that no template has of its own: if they come out, the template made use of them.
PROBE_TOOL_NAME = "synapse_probe_tool"
PROBE_CALL_NAME = "synapse_probe_call"
PROBE_ARGUMENT = "synapse_probe_argument"
PROBE_TOOL: Tool = {
    "type": "function",
    "function": {
        "name": PROBE_TOOL_NAME,
        "description": "A probe",
        "parameters": {"type": "object", "properties": {}, "required": []},
    },
}
# Mistral's templates want ids of nine letters.
PROBE_CALL = ToolCall("probe0001", PROBE_CALL_NAME, json.dumps({"value": PROBE_ARGUMENT}))
PROBE_QUESTION = ChatMessage("user", "Hello")
PROBE_TALK = (PROBE_QUESTION, ChatMessage("assistant", tool_calls=(PROBE_CALL,)))


@dataclass(frozen=True, slots=True)
class _Manner:
    """How a template wants calls of tools; they differ, and say nothing about it."""

    content_when_none: str | None
    arguments_parsed: bool


# What most templates take comes first.
MANNERS = tuple(_Manner(content, parsed) for content in ("", None) for parsed in (True, False))


def prompt_of(model: ModelSpec, request: InferenceRequest) -> TextOrTokens:
    """The raw prompt of a request: its own, or its conversation rendered.

    Raises:
        InvalidInput: there is none, or not of a kind that the model takes; see `render`.
    """
    value = request.input
    if isinstance(value.prompt, tuple) and Extension.PROMPT_TOKEN_IDS not in model.extensions:
        raise InvalidInput(NO_TOKEN_IDS, param="prompt")
    if value.prompt == ():
        raise InvalidInput("prompt: there are no token ids in it", param="prompt")
    if value.prompt is not None:
        return value.prompt
    if not value.messages:
        raise InvalidInput("there is neither a prompt nor a message")
    return render(model, value.messages, value.tools, value.variables, value.effort)


def text_of(model: ModelSpec, request: InferenceRequest) -> str:
    """The text of a request for a model that takes text only; else as `prompt_of`."""
    prompt = prompt_of(model, request)
    if isinstance(prompt, str):
        return prompt
    raise InvalidInput(NO_TOKEN_IDS, param="prompt")


def render(
    model: ModelSpec,
    messages: Sequence[ChatMessage],
    tools: Sequence[Tool] = (),
    variables: Mapping[str, object] = NO_VARIABLES,
    effort: str | None = None,
) -> str:
    """The prompt that makes the model answer the conversation, knowing the tools.

    Raises:
        InvalidInput: the model has no template, its template knows nothing of tools or of a
            variable that it is given, or objects to these messages.
        EngineError: the template is broken, or tries what a template must not.
    """
    if model.chat_template is None:
        raise InvalidInput(
            f"model {model.name!r} has no chat template; send a prompt instead", param="messages"
        )
    if tools and not supports_tools(model):
        raise InvalidInput(f"tools: model {model.name!r} was not made for tools", param="tools")
    manner = MANNERS[0]
    if any(message.tool_calls for message in messages):
        known = _manner_of_calls(model.chat_template, _tokens(model))
        if known is None:
            raise InvalidInput(
                f"messages: model {model.name!r} was not made for calls of tools", param="messages"
            )
        manner = known
    try:
        given = variables_of(model.name, model.chat_template, variables, effort)
        return _render(model.chat_template, _tokens(model), messages, tools, manner, given)
    except InvalidInput:
        raise
    except Exception as error:
        given_at = VARIABLES if variables else EFFORT if effort is not None else ""
        if given_at and _renders(model, messages, tools, manner):
            fails = f"the chat template of model {model.name!r} fails on it"
            why = error if isinstance(error, RefusedByTemplate) else fails
            raise InvalidInput(f"{given_at}: {why}", param=given_at) from error
        if isinstance(error, RefusedByTemplate):
            raise InvalidInput(f"messages: {error}", param="messages") from error
        if isinstance(error, RecursionError):
            deep = "messages: the arguments of an earlier call are nested too deep"
            raise InvalidInput(deep, param="messages") from error
        # Whatever it is, the template did it; its text may hold parts of the conversation.
        raise EngineError(f"the chat template of model {model.name!r} failed") from error


def _renders(
    model: ModelSpec, messages: Sequence[ChatMessage], tools: Sequence[Tool], manner: _Manner
) -> bool:
    """Whether the template can do without what it was given besides."""
    assert model.chat_template is not None
    try:
        _render(model.chat_template, _tokens(model), messages, tools, manner)
    except Exception:  # noqa: BLE001 - the template's own, whatever it is
        return False
    return True


def supports_tools(model: ModelSpec) -> bool:
    """Whether the model's template tells it of tools that it may call."""
    if model.chat_template is None:
        return False
    return _tells_of_tools(model.chat_template, _tokens(model))


SpecialTokens = tuple[tuple[str, str], ...]


def _tokens(model: ModelSpec) -> SpecialTokens:
    return tuple((f"{kind}_token", token) for kind, token in model.special_tokens.items())


@lru_cache(maxsize=64)
def _tells_of_tools(template: str, tokens: SpecialTokens) -> bool:
    shown = _probed(template, tokens, (PROBE_QUESTION,), MANNERS[0])
    return PROBE_TOOL_NAME in shown


@lru_cache(maxsize=64)
def _manner_of_calls(template: str, tokens: SpecialTokens) -> _Manner | None:
    """The first manner in which a call comes through; None if it does in none."""
    for manner in MANNERS:
        shown = _probed(template, tokens, PROBE_TALK, manner)
        if PROBE_CALL_NAME in shown and PROBE_ARGUMENT in shown:
            return manner
    return None


def _probed(
    template: str, tokens: SpecialTokens, talk: Sequence[ChatMessage], manner: _Manner
) -> str:
    """What the template makes of a probe: nothing, if it fails on it."""
    try:
        return _render(template, tokens, talk, (PROBE_TOOL,), manner)
    except Exception:  # noqa: BLE001 - the template's own, whatever it is; not this caller's
        return ""


def _render(
    template: str,
    tokens: SpecialTokens,
    messages: Sequence[ChatMessage],
    tools: Sequence[Tool],
    manner: _Manner,
    variables: Mapping[str, object] = NO_VARIABLES,
) -> str:
    # Ours come last: nobody else sets them.
    ours = {
        "messages": _turns(messages, manner),
        "add_generation_prompt": True,
        "tools": [dict(tool) for tool in tools] or None,
        **dict(tokens),
    }
    return compiled(template).render({"documents": None, **variables, **ours})


def _turns(messages: Sequence[ChatMessage], manner: _Manner) -> list[dict[str, Any]]:
    """The messages as Hugging Face's templates expect them."""
    called = {call.id: call.name for message in messages for call in message.tool_calls}
    turns: list[dict[str, Any]] = []
    for message in _in_order_of_calls(messages):
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            turn["content"] = message.content or manner.content_when_none
            turn["tool_calls"] = [_call(call, manner) for call in message.tool_calls]
        # Templates that know tools by name only are not told it by OpenAI's clients.
        name = message.name or called.get(message.tool_call_id or "")
        optional = {"name": name, "tool_call_id": message.tool_call_id}
        turns.append(turn | {key: value for key, value in optional.items() if value is not None})
    return turns


def _in_order_of_calls(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The messages, the results of a turn's calls in the order in which it made them.

    Many templates tell results by their place alone. Those of no call of it stay where they are.
    """
    ordered: list[ChatMessage] = []
    for is_result, run in groupby(messages, lambda message: message.role == "tool"):
        turns = list(run)
        if is_result and ordered:
            order = {call.id: at for at, call in enumerate(ordered[-1].tool_calls)}
            known = [turn for turn in turns if turn.tool_call_id in order]
            known.sort(key=lambda turn: order[turn.tool_call_id or ""])
            in_turn = iter(known)
            turns = [next(in_turn) if turn.tool_call_id in order else turn for turn in turns]
        ordered += turns
    return ordered


def _call(call: ToolCall, manner: _Manner) -> dict[str, Any]:
    arguments = _parsed(call.arguments) if manner.arguments_parsed else call.arguments
    function = {"name": call.name, "arguments": arguments}
    return {"type": "function", "id": call.id, "function": function}


def _parsed(arguments: str) -> object:
    try:
        parsed = json.loads(arguments)
        if ESCAPED_SURROGATE.search(arguments):
            json.dumps(parsed, ensure_ascii=False).encode()  # half of a pair is no text
    except (ValueError, RecursionError):
        # A model may have written anything; what it wrote is what it is shown again.
        return arguments
    return parsed
