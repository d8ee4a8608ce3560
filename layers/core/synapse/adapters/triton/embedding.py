"""Texts to vectors: the inputs of a request in a few calls, which the engine's batcher merges.

A request may bring thousands of inputs. They are sorted by length, so that those padded to one
length are of like length, and cut into calls small enough that somebody else's single sentence
is not kept waiting behind all of them.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import grpc

from synapse.adapters.triton import failures
from synapse.adapters.triton.connection import (
    Connection,
    Line,
    Unreachable,
    answer_of,
    is_being_cancelled,
)
from synapse.adapters.triton.failures import Place
from synapse.adapters.triton.generated import messages
from synapse.adapters.triton.tensors import (
    TEXT_INPUT,
    UnreadableAnswer,
    encode_texts,
    raw_outputs,
)
from synapse.domain.errors import EngineError, InvalidInput
from synapse.domain.inference import Embeddings, TextOrTokens
from synapse.domain.job import Usage
from synapse.domain.model import ModelSpec
from synapse.ports import InferenceRequest

INPUT_IDS, EMBEDDING, TOKEN_COUNT = "input_ids", "embedding", "num_input_tokens"
NO_TOKEN = -1
BYTES_PER_TOKEN = 4
BYTES_PER_FLOAT = 4

CALLS_AT_ONCE = 2
"""Of one request: the next one is to lie ready when the engine is done with the one before, and
somebody else's single sentence is to wait behind no more of them."""

FAULT = re.compile(r"invalid request: input\.(\d+): ")


@dataclass(frozen=True, slots=True)
class _Part:
    """What goes in one call: places among the request's inputs, and the inputs there."""

    places: tuple[int, ...]
    inputs: tuple[TextOrTokens, ...]


async def embed(
    connection: Connection, place: Place, request: InferenceRequest, deadline_at: float
) -> Embeddings:
    """The vectors of all inputs of a request, in their order.

    Leaving early cancels the calls at the engine.

    Raises:
        EngineError: an input is refused (its place is named), or a call failed.
    """
    inputs = request.input.inputs
    if not inputs:
        raise InvalidInput(f"model {place.model.name!r} makes embeddings: send `input`")
    vectors: list[bytes] = [b""] * len(inputs)
    tokens = 0
    slots = asyncio.Semaphore(CALLS_AT_ONCE)
    parts = list(_parts(inputs, place.model))

    async def call(part: _Part) -> int:
        async with slots:
            message = _message(place.model, request.id, part)
            found, count = await _call(connection, place, message, part, deadline_at)
        for at, vector in zip(part.places, found, strict=True):
            vectors[at] = vector
        return count

    if len(parts) == 1:
        tokens = await call(parts[0])
    else:
        tokens = sum(await _all([call(part) for part in parts]))
    return Embeddings(tuple(vectors), Usage(prompt_tokens=tokens))


async def _all(calls: Sequence[Coroutine[Any, Any, int]]) -> list[int]:
    """What all calls give; the first failure ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def _parts(inputs: Sequence[TextOrTokens], model: ModelSpec) -> Iterator[_Part]:
    """The inputs by kind and length, in calls of at most a batch each."""

    def kind_and_size(at: int) -> tuple[bool, int]:
        return isinstance(inputs[at], str), _size(inputs[at])

    part: list[int] = []
    tokens = 0
    for at in sorted(range(len(inputs)), key=kind_and_size):
        is_text, size = kind_and_size(at)
        is_full = len(part) >= model.batch.max_items or tokens + size > model.batch.max_tokens
        if part and (is_full or is_text != isinstance(inputs[part[0]], str)):
            yield _Part(tuple(part), tuple(inputs[each] for each in part))
            part, tokens = [], 0
        part.append(at)
        tokens += size
    yield _Part(tuple(part), tuple(inputs[each] for each in part))


def _size(value: TextOrTokens) -> int:
    """About how many tokens it has."""
    return len(value) // BYTES_PER_TOKEN + 1 if isinstance(value, str) else len(value)


async def _call(
    connection: Connection,
    place: Place,
    message: Any,
    part: _Part,
    deadline_at: float,
) -> tuple[list[bytes], int]:
    line: Line | None = None
    timeout_s = max(0.0, deadline_at - asyncio.get_running_loop().time())
    try:
        line = await connection.line()
        answer = await answer_of(line.counted(line.service.infer(message, timeout=timeout_s)))
        found = _read(answer, place.model, len(part.inputs))
    except Unreachable as error:
        raise failures.unreachable(place) from error
    except UnreadableAnswer as error:
        raise failures.unreadable(place, error) from error
    except grpc.aio.AioRpcError as error:
        secrets = [each for each in part.inputs if isinstance(each, str)]
        failure = connection.failure(place, error, line, secrets)
        raise _located(failure, error.details() or "", part) from error
    except asyncio.CancelledError:
        if is_being_cancelled():
            raise
        raise failures.closed(place) from None
    connection.touch()
    return found


def _located(failure: EngineError, details: str, part: _Part) -> EngineError:
    """The failure with the place of the input it is about, which the engine knows by another."""
    found = FAULT.search(details)
    if not isinstance(failure, InvalidInput) or found is None:
        return failure
    name = f"input.{part.places[int(found[1])]}"
    return type(failure)(f"{name}: {FAULT.sub('', failure.message)}", param=name)


def _message(model: ModelSpec, request_id: str, part: _Part) -> Any:
    is_text = isinstance(part.inputs[0], str)
    message = messages.ModelInferRequest()
    message.CopyFrom(_frame(model.name, model.version, is_text))
    message.id = request_id
    if is_text:
        texts = [_encoded(part, at) for at in range(len(part.inputs))]
        shape, raw = [len(texts), 1], encode_texts(texts)
    else:
        shape, raw = _ids(part)
    message.inputs[0].shape.extend(shape)
    message.raw_input_contents.append(raw)
    return message


@lru_cache(maxsize=128)
def _frame(name: str, version: str, is_text: bool) -> Any:
    tensor = messages.ModelInferRequest.InferInputTensor
    wanted = messages.ModelInferRequest.InferRequestedOutputTensor
    return messages.ModelInferRequest(
        model_name=name,
        model_version=version,
        inputs=[
            tensor(name=TEXT_INPUT, datatype="BYTES")
            if is_text
            else tensor(name=INPUT_IDS, datatype="INT32")
        ],
        outputs=[wanted(name=EMBEDDING), wanted(name=TOKEN_COUNT)],
    )


def _encoded(part: _Part, at: int) -> bytes:
    try:
        return str(part.inputs[at]).encode()
    except UnicodeEncodeError as error:
        name = f"input.{part.places[at]}"
        raise InvalidInput(f"{name}: is not valid Unicode", param=name) from error


def _ids(part: _Part) -> tuple[list[int], bytes]:
    """Rows of ids, all as long as the longest."""
    longest = max(len(each) for each in part.inputs)
    rows: list[bytes] = []
    for at, ids in zip(part.places, part.inputs, strict=True):
        try:
            padded = [*ids, *[NO_TOKEN] * (longest - len(ids))]
            rows.append(struct.pack(f"<{longest}i", *padded))
        except struct.error as error:
            name = f"input.{at}"
            raise InvalidInput(f"{name}: it has ids that no token has", param=name) from error
    return [len(rows), longest], b"".join(rows)


def _read(answer: Any, model: ModelSpec, expected: int) -> tuple[list[bytes], int]:
    """The vectors of a call, and the tokens that were read for them."""
    raw = raw_outputs(answer)
    vectors, counts = raw.get(EMBEDDING, b""), raw.get(TOKEN_COUNT, b"")
    size = model.dimensions * BYTES_PER_FLOAT
    if len(vectors) != expected * size:
        raise UnreadableAnswer(
            f"{len(vectors)} bytes instead of {expected} vectors of {model.dimensions} dimensions"
        )
    if len(counts) != expected * 4:
        raise UnreadableAnswer(f"{len(counts) // 4} token counts for {expected} inputs")
    tokens = sum(struct.unpack(f"<{expected}I", counts))
    return [vectors[at : at + size] for at in range(0, len(vectors), size)], tokens
