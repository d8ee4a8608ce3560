"""What a failed call means in the domain's terms, and what of it the caller may read. Pure.

The question that decides most is whether the engine can have begun the work. Triton itself gives
`UNAVAILABLE` for what it refuses to begin; gRPC gives the same code both for a connection that
was never made and for one that broke under a call, so those are told apart by gRPC's own texts
and by whether the connection outlived the call.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from grpc import StatusCode
from grpc.aio import AioRpcError

from synapse.domain.errors import (
    ContextLengthExceeded,
    EngineError,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
)
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool

MAX_MESSAGE_CHARS = 300
LEAK_CHARS = 16
"""Of a public text, no part of this size that is tried, a step apart, is part of a prompt."""

LEAK_STEP_CHARS = 8
SHORTEST_SECRET_CHARS = 4
"""A shorter one is in every text."""

NOT_CONNECTED = re.compile(r"failed to connect|resolution failed|no address|endpoint closing", re.I)
BROKEN = re.compile(
    r"socket closed|stream removed|connection reset|broken pipe|connection aborted|recvmsg|sendmsg"
    r"|goaway|cancelling all calls|rst_stream|keepalive|ping timeout",
    re.I,
)
TOO_LARGE = re.compile(r"message larger than max", re.I)

# Triton's own words, which in a stream come without a code.
NOT_LOADED = re.compile(r"request for unknown model", re.I)
NOT_TAKEN = re.compile(
    r"server (is )?not ready|server is stopping|exceeds maximum queue size|unhealthy vllm engine"
    r"|^(\[request id: [^\]]*\]\s*)?engine failed: ",
    re.I,
)
NO_ROOM = re.compile(
    r"shared memory pool|no space left on device|\bMemoryError\b|bad_alloc"
    r"|failed to allocate .*memory|out of memory|out_of_memory",
    re.I,
)
"""On the worker's machine, in the words of Triton, Python and CUDA: no input is at fault for it."""

NOT_FINISHED = re.compile(r"request was cancelled", re.I)
BACKEND_DIED = re.compile(
    r"stub process .* is not healthy"
    r"|^(\[request id: [^\]]*\]\s*)?error generating stream: enginecore encountered an issue",
    re.I,
)
"""Triton's words for its own process of a model, and vLLM's for its engine: neither comes back."""

QUEUE_TIMEOUT = re.compile(r"request timeout expired", re.I)
WRONG_TASK = re.compile(r"support models with decoupled transaction policy", re.I)
NO_SUCH_METHOD = re.compile(r"(method not found!?|unimplemented)?", re.I)

# The models' own: llama.cpp's, vLLM's, and those of workers that count by themselves.
TOO_LONG = re.compile(
    r"exceeds the available context size|longer than the maximum model length"
    r"|maximum context length",
    re.I,
)

# What Triton and its Python backend put around a model's own words, and what is not for callers.
REQUEST_ID = re.compile(r"^\[request id: [^\]]*\]\s*")
WRAPPING = re.compile(
    r"^failed to process the request\(s\) for model instance '[^']*', message: ", re.I
)
TRACEBACK = re.compile(r"\s*\n+\s*At:\s*\n.*", re.S)

# Our own worker names what is wrong; the prompt has other names on the wire.
REFUSED_INPUT = re.compile(r"^(\[request id: [^\]]*\]\s*)?invalid request: ", re.I)
COMPLAINT = re.compile(r"invalid request: (?:sampling parameter )?'([a-z_]+)")
TENSORS_OF_PARAMETERS = {"text_input": "prompt", "prompt_token_ids": "prompt"}

REFUSALS = frozenset(
    {
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.FAILED_PRECONDITION,
        StatusCode.PERMISSION_DENIED,
        StatusCode.UNAUTHENTICATED,
    }
)


@dataclass(frozen=True, slots=True)
class Place:
    """Which model of which pool was called, for messages."""

    model: ModelSpec
    pool: Pool

    @property
    def worker(self) -> str:
        """How messages call it. Addresses are nobody's business."""
        return f"the worker of pool {self.pool.name!r}"


def unreachable(place: Place) -> EngineUnavailable:
    """No connection could be made."""
    return EngineUnavailable(f"{place.worker} cannot be reached")


def lost(place: Place) -> EngineLost:
    """The connection, or the process behind it, went away under a call."""
    return EngineLost(f"{place.worker} went down while it worked on this")


def closed(place: Place) -> EngineUnavailable:
    """Our own end of the connection was closed under a call."""
    return EngineUnavailable(f"the connection to {place.worker} was closed on our side")


def timed_out() -> EngineTimeout:
    """The item's time was up before its answer came."""
    return EngineTimeout("the time allowed was over before the engine had finished")


def unreadable(place: Place, problem: object) -> EngineError:
    """The engine broke the contract."""
    return EngineError(f"model {place.model.name!r} answered what cannot be read: {problem}")


def from_rpc(
    place: Place, error: AioRpcError, *, connected: bool, secrets: Sequence[str]
) -> EngineError:
    """The error for a call that gRPC reports as failed; see `from_status`."""
    return from_status(
        place, error.code(), error.details() or "", connected=connected, secrets=secrets
    )


def from_status(
    place: Place, code: StatusCode, details: str, *, connected: bool, secrets: Sequence[str]
) -> EngineError:
    """The error for a call that ended with a status other than OK.

    `connected` says whether the connection is still there; `secrets` are the prompts, which a
    public text must not repeat.
    """
    match code:
        case StatusCode.DEADLINE_EXCEEDED:
            return timed_out()
        case StatusCode.CANCELLED | StatusCode.ABORTED | StatusCode.DATA_LOSS:
            return lost(place)
        case StatusCode.UNAVAILABLE:
            return _unavailable(place, details, connected)
        case StatusCode.INTERNAL | StatusCode.UNKNOWN if not connected or BROKEN.search(details):
            return lost(place)
        case StatusCode.RESOURCE_EXHAUSTED if TOO_LARGE.search(details):
            return InvalidInput("the input or its answer is larger than the engine's messages")
        case StatusCode.UNIMPLEMENTED if WRONG_TASK.search(details):
            return _not_as_catalogued(place)
        case StatusCode.UNIMPLEMENTED if NO_SUCH_METHOD.fullmatch(details):
            return EngineUnavailable(f"{place.worker} does not speak the Open Inference Protocol")
        case code if code in REFUSALS:
            return _refused(place)
        case _:
            return from_message(place, details, secrets)


def from_message(place: Place, message: str, secrets: Sequence[str]) -> EngineError:
    """The error for a text that came without a code, or with one that any model may give."""
    if REFUSED_INPUT.search(message):  # the rest may be the caller's own words
        return _refused_input(message, secrets)
    if NOT_LOADED.search(message):
        return _not_loaded(place)
    if NOT_TAKEN.search(message):
        return _refused(place)
    if BACKEND_DIED.search(message) or NOT_FINISHED.search(message):
        return lost(place)
    if QUEUE_TIMEOUT.search(message):
        return timed_out()
    if NO_ROOM.search(message):
        return _refused(place)
    return _refused_input(message, secrets)


def _refused_input(message: str, secrets: Sequence[str]) -> InvalidInput:
    text = public_text(message, secrets)
    if TOO_LONG.search(message):
        return ContextLengthExceeded(text)
    return InvalidInput(text, param=_parameter(message))


def _parameter(message: str) -> str | None:
    """Which one our own worker complains of, by the name that callers know."""
    found = COMPLAINT.search(message)
    return TENSORS_OF_PARAMETERS.get(found[1], found[1]) if found else None


def public_text(message: str, secrets: Sequence[str]) -> str:
    """A model's own words as one short line, or a stock phrase if they repeat the input."""
    words = WRAPPING.sub("", REQUEST_ID.sub("", TRACEBACK.sub("", message)))[:MAX_MESSAGE_CHARS]
    text = " ".join(words.split())
    if not text or any(_repeats(words, secret) for secret in secrets):
        return "the model refuses this input"
    return f"{text}…" if len(words) == MAX_MESSAGE_CHARS else text


def _repeats(text: str, secret: str) -> bool:
    if len(secret) < LEAK_CHARS:
        return len(secret) >= SHORTEST_SECRET_CHARS and secret in text
    starts = range(0, len(text) - LEAK_CHARS + 1, LEAK_STEP_CHARS)
    return any(text[at : at + LEAK_CHARS] in secret for at in starts)


def _unavailable(place: Place, details: str, connected: bool) -> EngineError:
    if NOT_CONNECTED.search(details):
        return unreachable(place)
    if QUEUE_TIMEOUT.search(details):
        return timed_out()
    if NOT_LOADED.search(details):
        return _not_loaded(place)
    if BROKEN.search(details) or not connected:
        return lost(place)
    return _refused(place)


def _not_loaded(place: Place) -> EngineUnavailable:
    model = place.model
    return EngineUnavailable(
        f"{place.worker} has not loaded model {model.name!r} version {model.version}; load it "
        "there, or take the model out of the catalogue"
    )


def _not_as_catalogued(place: Place) -> EngineUnavailable:
    model = place.model
    return EngineUnavailable(
        f"{place.worker} serves model {model.name!r} otherwise than the catalogue says (task "
        f"{model.task.value!r}); correct one of them"
    )


def _refused(place: Place) -> EngineUnavailable:
    return EngineUnavailable(f"{place.worker} takes no work at present")
