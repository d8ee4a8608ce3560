"""What a job carries in and out, as JSON text: in its record, or by claim check in a blob."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from synapse.domain.inference import (
    ChatMessage,
    Choice,
    Completion,
    Embeddings,
    ModelInput,
    Result,
    TextOrTokens,
    TokenLogprob,
    ToolCall,
)
from synapse.domain.job import Job, Payload, Usage
from synapse.ports import BlobStore

INLINE_LIMIT_BYTES = 128 * 1024
"""Above this a text goes to any blob store, so that a job always fits into one DynamoDB item.

Those hold 400 KB in all, which are at most: 256 KB of input and result, 108 KB of metadata (16 keys
of 64 and values of 512 characters, of which JSON in ASCII makes 12 bytes each), 8 KB of callback
URL (2,048 characters of 4 bytes), and 3 KB of everything else. A result that does not fit could
never be written: its job would run until nobody tries any more.
"""


def encode_input(value: ModelInput) -> str:
    """The JSON text of an input; what is at its default is left out."""
    body = {
        "messages": [_present(_message_body(message)) for message in value.messages],
        "parameters": dict(value.parameters),
        "tools": value.tools,
        "inputs": value.inputs,
        "samples": value.samples if value.samples > 1 else None,
        "variables": dict(value.variables),
        "effort": value.effort,
    }
    # An empty prompt is one, other than none at all.
    prompt = {} if value.prompt is None else {"prompt": value.prompt}
    return _json(prompt | _present(body))


def decode_input(text: str) -> ModelInput:
    """The input of a JSON text that `encode_input` wrote."""
    body = json.loads(text)
    return ModelInput(
        prompt=_text_or_tokens(body.get("prompt")),
        messages=tuple(_message(message) for message in body.get("messages", ())),
        parameters=body.get("parameters", {}),
        tools=tuple(body.get("tools", ())),
        inputs=tuple(_text_or_tokens(each) or "" for each in body.get("inputs", ())),
        samples=body.get("samples", 1),
        variables=body.get("variables", {}),
        effort=body.get("effort"),
    )


def encode_result(result: Result) -> str:
    """The JSON text of a result; its usage is in the job's record, less what no record holds."""
    if isinstance(result, Embeddings):
        return _json({"embeddings": [b64encode(vector).decode() for vector in result.vectors]})
    body: dict[str, Any] = {"text": result.text, "finish_reason": result.finish_reason}
    body["logprobs"] = _logprobs_body(result.logprobs)
    body["others"] = [
        _present(
            {
                "text": c.text,
                "finish_reason": c.finish_reason,
                "logprobs": _logprobs_body(c.logprobs),
            }
        )
        for c in result.others
    ]
    optional = {"cached_tokens": result.usage.cached_tokens}
    body |= {name: value for name, value in optional.items() if value is not None}
    return _json({name: value for name, value in body.items() if value not in (None, [])})


def decode_result(text: str, usage: Usage) -> Result:
    """The result of a JSON text that `encode_result` wrote, with its job's recorded usage."""
    body = json.loads(text)
    if "embeddings" in body:
        return Embeddings(tuple(b64decode(vector) for vector in body["embeddings"]), usage)
    cached = body.get("cached_tokens")
    return Completion(
        text=body["text"],
        finish_reason=body["finish_reason"],
        usage=Usage(usage.prompt_tokens, usage.completion_tokens, cached),
        logprobs=_logprobs(body.get("logprobs", ())),
        others=tuple(
            Choice(c.get("text", ""), c["finish_reason"], _logprobs(c.get("logprobs", ())))
            for c in body.get("others", ())
        ),
    )


async def stow(blobs: BlobStore, key: str, text: str) -> Payload:
    """Keep `text` inline if it is small, else store it under `key` and keep the claim check.

    The blob store says what is small; a record takes no more than `INLINE_LIMIT_BYTES`.
    """
    limit = min(blobs.inline_bytes, INLINE_LIMIT_BYTES)
    if len(text) <= limit and len(text.encode()) <= limit:
        return Payload(inline=text)
    await blobs.put(key, text.encode())
    return Payload(blob_key=key)


async def stowed(blobs: BlobStore, job: Job) -> Job:
    """A new job as it is recorded: its input stored apart if it is not small.

    To be called before the job is recorded, so that no record names what is not there. What no
    record comes to name goes by the store's own rules; a repetition stores the same bytes again.
    """
    text = job.payload.inline
    if text is None:
        return job
    return replace(job, payload=await stow(blobs, f"jobs/{job.id}/input", text))


async def fetch(blobs: BlobStore, payload: Payload) -> str:
    """The text of a payload.

    Raises:
        KeyError: its blob is gone.
    """
    if payload.inline is not None:
        return payload.inline
    if payload.blob_key is None:
        raise KeyError("the payload has neither text nor blob")
    return (await blobs.get(payload.blob_key)).decode()


def _message_body(message: ChatMessage) -> dict[str, Any]:
    return {
        "role": message.role,
        "content": message.content,
        "name": message.name,
        "tool_calls": [[call.id, call.name, call.arguments] for call in message.tool_calls],
        "tool_call_id": message.tool_call_id,
    }


def _message(body: Mapping[str, Any]) -> ChatMessage:
    return ChatMessage(
        role=body["role"],
        content=body.get("content", ""),
        name=body.get("name"),
        tool_calls=tuple(ToolCall(*call) for call in body.get("tool_calls", ())),
        tool_call_id=body.get("tool_call_id"),
    )


def _logprobs_body(logprobs: tuple[TokenLogprob, ...]) -> list[Any]:
    return [[each.token, each.logprob, each.top] for each in logprobs]


def _logprobs(body: Any) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(token, logprob, tuple((other, value) for other, value in top))
        for token, logprob, top in body
    )


def _text_or_tokens(value: str | list[int] | None) -> TextOrTokens | None:
    return tuple(value) if isinstance(value, list) else value


def _present(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value not in (None, "", [], (), {})}


def _json(body: Mapping[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
