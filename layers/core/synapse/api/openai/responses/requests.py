"""The body of /v1/responses as what is asked of a model. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synapse.api.openai.requests import Ask, Talk, Told, ask_of, input_of
from synapse.api.openai.responses.conversation import conversation
from synapse.api.openai.responses.refused import refuse_in
from synapse.api.openai.responses.schemas import (
    AllowedTools,
    FunctionTool,
    NamedFunction,
    ResponsesRequest,
    TextConfig,
)
from synapse.api.openai.sampling import check_logit_bias
from synapse.api.openai.tools import Calling, Wanted, calling, stops_of
from synapse.api.openai.unsupported import UnsupportedParameter
from synapse.domain.errors import InvalidRequest

EFFORT_AT = "reasoning.effort"


def read_response(body: ResponsesRequest) -> Ask:
    """What a body asks for.

    Raises:
        InvalidRequest: it contradicts itself, or asks for what cannot be honoured.
    """
    refuse_in(body)
    check_logit_bias(body)
    calls = calling(_wanted(body))
    top_logprobs = _top_logprobs(body, calls)
    talk = Talk(
        messages=conversation(body),
        max_tokens=body.max_output_tokens,
        top_logprobs=top_logprobs,
        calls=calls,
        form=_form(body.text),
        form_at="text.format",
        variables=body.chat_template_kwargs,
        effort=None if body.reasoning is None else body.reasoning.effort,
        effort_at=EFFORT_AT,
    )
    value, form_from = input_of(body, talk)
    told = Told(True, top_logprobs, calling=calls, form_from=form_from)
    return ask_of(
        body,
        (value,),
        told,
        length_at="max_output_tokens",
        prompt_at="input",
        effort_at=EFFORT_AT,
    )


def _wanted(body: ResponsesRequest) -> Wanted:
    """What the body says of tools."""
    functions, choice = body.functions, body.tool_choice or "auto"
    named = choice.name if isinstance(choice, NamedFunction) else ""
    if isinstance(choice, AllowedTools):
        functions, choice = _allowed(functions, choice), choice.mode
    assert isinstance(choice, str | NamedFunction)
    return Wanted(
        functions,
        choice if isinstance(choice, str) else "named",
        named,
        body.parallel_tool_calls is False,
        stops_of(body),
        within="",
    )


def _allowed(functions: list[FunctionTool], choice: AllowedTools) -> list[FunctionTool]:
    names = {function.name for function in functions}
    for at, allowed in enumerate(choice.tools):
        if allowed.name not in names:
            raise _invalid(f"tool_choice.tools.{at}.name", f"no tool has the name {allowed.name!r}")
    wanted = {allowed.name for allowed in choice.tools}
    return [function for function in functions if function.name in wanted]


def _top_logprobs(body: ResponsesRequest, calls: Calling | None) -> int | None:
    if not body.wants_logprobs:
        if body.top_logprobs:
            raise _invalid("top_logprobs", "needs include: ['message.output_text.logprobs']")
        return None
    if calls is not None:
        # They are told beside a text, and which of the tokens a call is made of nobody says.
        raise UnsupportedParameter(
            "include: log probabilities are not told of an answer that may call tools; "
            "leave out the one or the other",
            param="include",
        )
    return body.top_logprobs or 0


def _form(text: TextConfig | None) -> Mapping[str, Any] | None:
    wanted = None if text is None else text.format
    if wanted is None:
        return None
    if wanted.type != "json_schema":
        for name in ("name", "schema", "description", "strict"):
            if getattr(wanted, "schema_" if name == "schema" else name) is not None:
                raise _invalid(f"text.format.{name}", "goes with type 'json_schema' only")
        return {"json_object": True} if wanted.type == "json_object" else None
    if wanted.name is None or wanted.schema_ is None:
        missing = "name" if wanted.name is None else "schema"
        raise _invalid(f"text.format.{missing}", "is required with type 'json_schema'")
    return {"json": wanted.schema_}


def _invalid(param: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {reason}", param=param)
