"""Requests and responses of the Open Inference Protocol, as Triton has them on the wire. Pure.

Texts go as BYTES tensors in `raw_input_contents`: every element is its length in four
little-endian bytes, then its UTF-8 bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from synapse.adapters.triton.generated import messages
from synapse.adapters.triton.logprobs import read_logprobs
from synapse.domain.extension import Extension
from synapse.domain.inference import Delta
from synapse.domain.model import ModelSpec

TEXT_INPUT = "text_input"
TEXT_OUTPUT = "text_output"
LENGTH_BYTES = 4

# The tensors of Triton's vLLM backend.
SAMPLING_PARAMETERS = "sampling_parameters"
STREAM_FLAG = "stream"
SET_FLAGS = (
    "exclude_input_in_output",
    "return_finish_reason",
    "return_num_input_tokens",
    "return_num_output_tokens",
)
LOGPROBS_FLAG = "return_logprobs"
# And those that only workers with the extension take.
CACHED_TOKENS_FLAG = "return_num_cached_tokens"
TOKEN_IDS_INPUT = "prompt_token_ids"
# A parameter of the request, since `priority` is Triton's own and reaches no backend.
REQUEST_PRIORITY = "request_priority"
# vLLM's backend wants this parameter as a text of its own, inside the text of all of them.
JSON_IN_JSON = "structured_outputs"
LEAST_TOP_P = 1e-9
"""Leaves the likeliest token alone, as OpenAI's 0 does, which engines refuse."""

FINAL_RESPONSE = "triton_final_response"
EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"
NO_FINISH_REASON = ("", "None")


class UnreadableAnswer(ValueError):
    """The engine's answer is not what the contract promises."""


def encode_texts(texts: Sequence[bytes]) -> bytes:
    """A BYTES tensor's raw contents."""
    parts: list[bytes] = []
    for text in texts:
        parts.append(len(text).to_bytes(LENGTH_BYTES, "little"))
        parts.append(text)
    return b"".join(parts)


def decode_texts(raw: bytes) -> list[str]:
    """The texts of a BYTES tensor's raw contents."""
    return list(_elements(raw))


def _elements(raw: bytes) -> Iterator[str]:
    at, end = 0, len(raw)
    while at < end:
        start = at + LENGTH_BYTES
        at = start + int.from_bytes(raw[at:start], "little")
        if at > end:
            raise UnreadableAnswer("a text is cut off")
        yield raw[start:at].decode("utf-8", "replace")


def text_request(model: ModelSpec, texts: Sequence[bytes], priority: int = 0) -> Any:
    """A whole batch for a text model: one tensor, a row for each text."""
    tensor = messages.ModelInferRequest.InferInputTensor
    request = messages.ModelInferRequest(
        model_name=model.name,
        model_version=model.version,
        inputs=[tensor(name=TEXT_INPUT, datatype="BYTES", shape=[len(texts), 1])],
        outputs=[messages.ModelInferRequest.InferRequestedOutputTensor(name=TEXT_OUTPUT)],
        raw_input_contents=[encode_texts(texts)],
    )
    _set_priority(request, model, priority)
    return request


def _set_priority(request: Any, model: ModelSpec, priority: int) -> None:
    """On vLLM's scale: lower runs first, 0 is ordinary and goes without saying."""
    if priority and Extension.PRIORITY in model.extensions:
        request.parameters[REQUEST_PRIORITY].int64_param = priority


def read_texts(response: Any, expected: int) -> list[str]:
    """The texts of a batch, as many as were sent.

    Raises:
        UnreadableAnswer: there are more or fewer, or none at all.
    """
    raw = raw_outputs(response).get(TEXT_OUTPUT)
    if raw is None:
        raise UnreadableAnswer(f"there is no {TEXT_OUTPUT}")
    texts = decode_texts(raw)
    if len(texts) != expected:
        raise UnreadableAnswer(f"{len(texts)} texts for {expected}")
    return texts


def generation_request(
    model: ModelSpec,
    request_id: str,
    prompt: bytes | Sequence[int],
    parameters: Mapping[str, object],
    stream: bool,
    priority: int = 0,
) -> Any:
    """One generation, for the vLLM backend or what speaks like it; a prompt may be token ids.

    The prompt is never to be echoed, and the usage is always to be told. Sampling parameters
    travel as a JSON tensor: gRPC request parameters hold no lists.

    Raises:
        ValueError, TypeError: the parameters are not JSON.
        OverflowError: a token id is none.
    """
    flags = _flags(model, parameters)
    is_text = isinstance(prompt, bytes)
    size = 1 if is_text else len(prompt)
    request = messages.ModelInferRequest()
    request.CopyFrom(_generation_frame(model.name, model.version, is_text, flags))
    request.inputs[0].shape[0] = size
    request.id = request_id
    _set_priority(request, model, priority)
    request.raw_input_contents.extend(
        (
            encode_texts([prompt]) if isinstance(prompt, bytes) else _token_ids(prompt),
            encode_texts([_sampling(model, parameters).encode()]),
            b"\1" if stream else b"\0",
            *[b"\1"] * len(flags),
        )
    )
    return request


def _flags(model: ModelSpec, parameters: Mapping[str, object]) -> tuple[str, ...]:
    """What is set besides the mode: a worker may refuse a flag that it does not know."""
    flags: tuple[str, ...] = SET_FLAGS
    if parameters.get("logprobs") is not None:
        flags += (LOGPROBS_FLAG,)
    if Extension.CACHED_TOKENS in model.extensions:
        flags += (CACHED_TOKENS_FLAG,)
    return flags


def _sampling(model: ModelSpec, parameters: Mapping[str, object]) -> str:
    sent = dict(parameters)
    if "max_tokens" in sent and sent["max_tokens"] is None:  # as many as there can be
        sent["max_tokens"] = model.max_output_tokens
    if sent.get("top_p") == 0:
        sent["top_p"] = LEAST_TOP_P
    if isinstance(sent.get(JSON_IN_JSON), Mapping):
        sent[JSON_IN_JSON] = _json(sent[JSON_IN_JSON])
    return _json(sent)


def _json(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _token_ids(ids: Sequence[int]) -> bytes:
    try:
        return struct.pack(f"<{len(ids)}i", *ids)
    except struct.error as error:
        raise OverflowError("a token id has 32 bits") from error


@lru_cache(maxsize=128)
def _generation_frame(name: str, version: str, is_text: bool, flags: tuple[str, ...]) -> Any:
    tensor = messages.ModelInferRequest.InferInputTensor
    prompt, kind = (TEXT_INPUT, "BYTES") if is_text else (TOKEN_IDS_INPUT, "INT32")
    frame = messages.ModelInferRequest(
        model_name=name,
        model_version=version,
        inputs=[
            tensor(name=prompt, datatype=kind, shape=[1]),
            tensor(name=SAMPLING_PARAMETERS, datatype="BYTES", shape=[1]),
            *(tensor(name=flag, datatype="BOOL", shape=[1]) for flag in (STREAM_FLAG, *flags)),
        ],
    )
    # Else a backend may end a stream with a bare flag that Triton keeps to itself.
    frame.parameters[EMPTY_FINAL_RESPONSE].bool_param = True
    return frame


def read_delta(response: Any, top_logprobs: int = 0) -> Delta:
    """What a response adds to a generation; a final one may add nothing.

    Raises:
        UnreadableAnswer: a tensor is not what the contract says.
    """
    raw = raw_outputs(response)
    reason = _first_text(raw, "finish_reason")
    cached = "num_cached_tokens"
    try:
        logprobs = read_logprobs(_first_text(raw, "logprobs"), top_logprobs)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnreadableAnswer("its log probabilities are not as vLLM's") from error
    return Delta(
        text=_first_text(raw, TEXT_OUTPUT),
        prompt_tokens=_first_count(raw, "num_input_tokens"),
        completion_tokens=_first_count(raw, "num_output_tokens"),
        finish_reason=None if reason in NO_FINISH_REASON else reason,
        cached_tokens=_first_count(raw, cached) if cached in raw else None,
        logprobs=logprobs,
    )


def is_final(response: Any) -> bool:
    """Whether nothing follows this response of a generation."""
    # Reading an absent key of a protobuf map would add it.
    parameters = response.parameters
    return FINAL_RESPONSE in parameters and bool(parameters[FINAL_RESPONSE].bool_param)


def raw_outputs(response: Any) -> dict[str, bytes]:
    """The raw contents of a response's tensors, by name.

    Raises:
        UnreadableAnswer: there are more or fewer contents than tensors.
    """
    names = [output.name for output in response.outputs]
    contents = list(response.raw_output_contents)
    if len(names) != len(contents):
        raise UnreadableAnswer(f"{len(contents)} raw contents for {len(names)} outputs")
    return dict(zip(names, contents, strict=True))


def _first_text(raw: Mapping[str, bytes], name: str) -> str:
    return next(_elements(raw.get(name, b"")), "")


def _first_count(raw: Mapping[str, bytes], name: str) -> int:
    return int.from_bytes(raw.get(name, b"")[:4], "little")
