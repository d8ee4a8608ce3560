"""What a job carries in and out, as JSON text: in its record, or by claim check in a blob."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from synapse.domain.job import Payload
from synapse.ports import BlobStore, ChatMessage, Completion

INLINE_LIMIT_BYTES = 200 * 1024
"""Above this a text goes to the blob store: a DynamoDB item holds 400 KB in all."""


@dataclass(frozen=True, slots=True)
class JobInput:
    """A raw prompt or a conversation, and the sampling parameters under vLLM's names."""

    prompt: str | None = None
    messages: tuple[ChatMessage, ...] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """The size of the text the model reads, in UTF-8 bytes."""
        texts = [self.prompt or "", *(message.content for message in self.messages)]
        return sum(len(text.encode()) for text in texts)


def encode_input(value: JobInput) -> str:
    """The JSON text of an input."""
    messages = [{"role": m.role, "content": m.content} for m in value.messages]
    body = {"prompt": value.prompt, "messages": messages, "parameters": dict(value.parameters)}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def decode_input(text: str) -> JobInput:
    """The input of a JSON text that `encode_input` wrote."""
    body = json.loads(text)
    messages = tuple(ChatMessage(m["role"], m["content"]) for m in body["messages"])
    return JobInput(body["prompt"], messages, body["parameters"])


def encode_result(completion: Completion) -> str:
    """The JSON text of a result."""
    body = {"text": completion.text, "finish_reason": completion.finish_reason}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


async def stow(blobs: BlobStore, key: str, text: str) -> Payload:
    """Keep `text` inline if it is small, else store it under `key` and keep the claim check."""
    if len(text) <= INLINE_LIMIT_BYTES and len(text.encode()) <= INLINE_LIMIT_BYTES:
        return Payload(inline=text)
    await blobs.put(key, text.encode())
    return Payload(blob_key=key)


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
