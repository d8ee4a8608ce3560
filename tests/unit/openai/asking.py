"""Bodies with what a test is about, and what is read of them."""

from __future__ import annotations

from typing import Any

from synapse.api.openai.requests import Ask, read_chat, read_completion
from synapse.api.openai.responses.requests import read_response
from synapse.api.openai.responses.schemas import ResponsesRequest
from synapse.api.openai.schemas import ChatRequest, CompletionRequest

HELLO = [{"role": "user", "content": "Hello"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
OTHER = {"type": "function", "function": {"name": "g"}}


def chat(**fields: Any) -> Ask:
    body = {"model": "m", "messages": HELLO, **fields}
    return read_chat(ChatRequest.model_validate(body))


def completion(**fields: Any) -> Ask:
    body = {"model": "m", "prompt": "Hello", **fields}
    return read_completion(CompletionRequest.model_validate(body))


def response(**fields: Any) -> Ask:
    body = {"model": "m", "input": "Hello", **fields}
    return read_response(ResponsesRequest.model_validate(body))


def parameters(ask: Ask) -> dict[str, Any]:
    """What goes to the engine."""
    return dict(ask.inputs[0].parameters)
