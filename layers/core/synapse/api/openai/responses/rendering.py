"""The body of a response: what was asked, echoed, and what came of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synapse.api.openai.rendering import Body, Heading
from synapse.api.openai.responses.output import Output
from synapse.api.openai.responses.schemas import FunctionTool, ResponsesRequest
from synapse.domain.job import Usage
from synapse.domain.limiting import OUT_OF_BUDGET

ENDED: Mapping[bool, Body] = {
    False: {"status": "completed", "incomplete_details": None},
    True: {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
}
"""What became of an answer, by whether it was cut off."""


def begun_body(body: ResponsesRequest, heading: Heading) -> Body:
    """A response of which nothing is written yet."""
    return {
        "id": heading.id,
        "object": "response",
        "created_at": heading.created,
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": heading.model,
        "output": [],
        "usage": None,
        "service_tier": body.service_tier,
        **_echoed(body),
    }


def ended_body(begun: Body, output: Output, usage: Usage, tier: str | None, now: int) -> Body:
    """The response at its end."""
    return {
        **begun,
        **ENDED[output.is_cut],
        "completed_at": None if output.is_cut else now,
        "output": output.items,
        "usage": usage_body(usage),
        "service_tier": tier,
    }


def failed_body(begun: Body, output: Output, error: Mapping[str, str | None]) -> Body:
    """The response if what is told in `error` ended it."""
    told = {"code": _code(error), "message": error["message"]}
    return {**begun, "status": "failed", "output": output.items, "error": told}


def usage_body(usage: Usage) -> Body:
    """Tokens read and written, in the words of this route."""
    cached = {"cached_tokens": usage.cached_tokens or 0, "cache_write_tokens": 0}
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": cached,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }


def _echoed(body: ResponsesRequest) -> Body:
    """What was asked, as clients expect to read it again."""
    return {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": body.reasoning and body.reasoning.effort, "summary": None},
        "safety_identifier": body.safety_identifier,
        "store": False,
        "temperature": body.temperature,
        "text": {"format": _format(body), "verbosity": "medium"},
        "tool_choice": _choice(body),
        "tools": [_tool(tool) for tool in body.functions],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": body.top_p,
        "truncation": "disabled",
        "user": body.user,
    }


def _format(body: ResponsesRequest) -> Body:
    wanted = None if body.text is None else body.text.format
    if wanted is None:
        return {"type": "text"}
    return wanted.model_dump(by_alias=True, exclude_none=True)


def _choice(body: ResponsesRequest) -> Any:
    choice = body.tool_choice or "auto"
    return choice if isinstance(choice, str) else choice.model_dump()


def _tool(tool: FunctionTool) -> Body:
    names = ("type", "name", "description", "parameters", "strict")
    return {name: getattr(tool, name) for name in names}


def _code(error: Mapping[str, str | None]) -> str:
    """Which of the codes that OpenAI has for responses that failed it is."""
    if error["type"] in ("rate_limit_error", OUT_OF_BUDGET):
        return "rate_limit_exceeded"
    return "server_error" if error["type"] == "server_error" else "invalid_prompt"
