"""From what a call ends with to what the domain calls it."""

from __future__ import annotations

import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from synapse.adapters.triton.failures import (
    LEAK_CHARS,
    LEAK_STEP_CHARS,
    MAX_MESSAGE_CHARS,
    Place,
    from_message,
    from_status,
    public_text,
)
from synapse.domain.errors import (
    ContextLengthExceeded,
    EngineError,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
)
from tests.factories import a_model, a_pool

PLACE = Place(a_model("m"), a_pool("gpu", endpoint="10.1.2.3:8001"))
REFUSED_TO_CONNECT = (
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.1.2.3:8001: Failed to "
    "connect to remote host: Connection refused"
)

UP, DOWN = True, False


@pytest.mark.parametrize(
    ("code", "details", "connected", "kind"),
    [
        (StatusCode.UNAVAILABLE, REFUSED_TO_CONNECT, DOWN, EngineUnavailable),
        (StatusCode.UNAVAILABLE, "DNS resolution failed for gpu:8001", DOWN, EngineUnavailable),
        (StatusCode.UNAVAILABLE, "Stream removed (Socket closed)", DOWN, EngineLost),
        # Another call has mended the connection meanwhile.
        (StatusCode.UNAVAILABLE, "recvmsg:Connection reset by peer", UP, EngineLost),
        (StatusCode.UNAVAILABLE, "keepalive watchdog timeout", DOWN, EngineLost),
        (StatusCode.UNAVAILABLE, "GOAWAY received", DOWN, EngineLost),
        # What its server says to those it leaves; the connection is not known to be gone yet.
        (StatusCode.UNAVAILABLE, "Cancelling all calls", UP, EngineLost),
        (StatusCode.UNAVAILABLE, "words of a later version", DOWN, EngineLost),
        (StatusCode.UNAVAILABLE, "Server not ready", UP, EngineUnavailable),
        (StatusCode.UNAVAILABLE, "Exceeds maximum queue size", UP, EngineUnavailable),
        (StatusCode.UNAVAILABLE, "Request timeout expired", UP, EngineTimeout),
        (StatusCode.UNAVAILABLE, "Request for unknown model: 'm' is", UP, EngineUnavailable),
        (StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", UP, EngineTimeout),
        (StatusCode.CANCELLED, "Request was cancelled", UP, EngineLost),
        (StatusCode.ABORTED, "", UP, EngineLost),
        (StatusCode.DATA_LOSS, "", UP, EngineLost),
        (StatusCode.UNKNOWN, "Stream removed", UP, EngineLost),
        (StatusCode.UNKNOWN, "", DOWN, EngineLost),
        (StatusCode.UNKNOWN, "the model has its reasons", UP, InvalidInput),
        (StatusCode.INTERNAL, "Received RST_STREAM with error code 2", UP, EngineLost),
        (StatusCode.INTERNAL, "Stub process 'm_0_0' is not healthy.", UP, EngineLost),
        (StatusCode.INTERNAL, "an item asked to fail", UP, InvalidInput),
        (
            StatusCode.INTERNAL,
            "Failed to increase the shared memory pool size for key 'synapse-ab-x' to 67108864 "
            "bytes. [...] Error: No space left on device",
            UP,
            EngineUnavailable,
        ),
        (
            StatusCode.INTERNAL,
            "Failed to process the request(s) for model instance 'm_0', message: MemoryError: ",
            UP,
            EngineUnavailable,
        ),
        (StatusCode.INTERNAL, "failed to allocate CUDA memory", UP, EngineUnavailable),
        (StatusCode.UNKNOWN, "CUDA error: out of memory", UP, EngineUnavailable),
        (StatusCode.UNKNOWN, "std::bad_alloc", UP, EngineUnavailable),
        (
            StatusCode.INVALID_ARGUMENT,
            "[request id: 5] invalid request: the grammar has no rule 'MemoryError'",
            UP,
            InvalidInput,
        ),
        (StatusCode.INVALID_ARGUMENT, "'top_p' is odd", UP, InvalidInput),
        (StatusCode.NOT_FOUND, "Request for unknown model: 'm'", UP, EngineUnavailable),
        (StatusCode.NOT_FOUND, "no such adapter", UP, InvalidInput),
        (StatusCode.ALREADY_EXISTS, "sequence", UP, InvalidInput),
        (StatusCode.RESOURCE_EXHAUSTED, "queue is full", UP, EngineUnavailable),
        (
            StatusCode.RESOURCE_EXHAUSTED,
            "CLIENT: Sent message larger than max (5 vs. 4)",
            UP,
            InvalidInput,
        ),
        (StatusCode.FAILED_PRECONDITION, "", UP, EngineUnavailable),
        (StatusCode.UNAUTHENTICATED, "", UP, EngineUnavailable),
        (StatusCode.PERMISSION_DENIED, "", UP, EngineUnavailable),
        (StatusCode.UNIMPLEMENTED, "Method not found!", UP, EngineUnavailable),
        (StatusCode.UNIMPLEMENTED, "", UP, EngineUnavailable),
        (StatusCode.UNIMPLEMENTED, "beam search is not supported", UP, InvalidInput),
    ],
)
def test_a_status_is_an_error_of_the_domain(
    code: StatusCode, details: str, connected: bool, kind: type[EngineError]
) -> None:
    error = from_status(PLACE, code, details, connected=connected, secrets=())

    assert type(error) is kind
    assert error.message
    assert "10.1.2.3" not in error.message


def test_every_status_has_a_meaning() -> None:
    for code in StatusCode:
        assert isinstance(from_status(PLACE, code, "", connected=True, secrets=()), EngineError)


VLLM_IS_DEAD = (
    "Error generating stream: EngineCore encountered an issue. See stack trace (above) for the "
    "root cause."
)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Request for unknown model: 'm' is not found", EngineUnavailable),
        ("Request for unknown model: 'm' version 1 is not at ready state", EngineUnavailable),
        ("Server not ready", EngineUnavailable),
        ("Model is unavailable due to unhealthy vLLM engine", EngineUnavailable),
        ("Exceeds maximum queue size", EngineUnavailable),
        ("Stub process 'm_0_0' is not healthy.", EngineLost),
        (VLLM_IS_DEAD, EngineLost),
        (f"[request id: 5] {VLLM_IS_DEAD}", EngineLost),
        (f"Error generating stream: no rule in '{VLLM_IS_DEAD}'", InvalidInput),
        ("Request timeout expired", EngineTimeout),
        ("Error generating stream: max_tokens must be at least 1, got 0", InvalidInput),
        ("request (9 tokens) exceeds the available context size (8)", ContextLengthExceeded),
        ("The prompt (9) is longer than the maximum model length of 8", ContextLengthExceeded),
        ("invalid request: request (9) exceeds the available context size", ContextLengthExceeded),
        ("Error generating stream: rule 'unhealthy' is not defined", InvalidInput),
    ],
)
def test_a_message_in_a_stream_is_known_by_its_words(message: str, kind: type[EngineError]) -> None:
    assert type(from_message(PLACE, message, ())) is kind


@pytest.mark.parametrize("request_id", ["", "[request id: 5] "])
@pytest.mark.parametrize(
    "quoted",
    [
        "unhealthy",
        "unhealthy vLLM engine",
        "server not ready",
        "Request for unknown model",
        "request was cancelled",
        "Request timeout expired",
        "out of memory",
    ],
)
def test_what_a_refusal_quotes_of_its_caller_is_no_failure_of_the_worker(
    request_id: str, quoted: str
) -> None:
    message = f"{request_id}invalid request: 'guided_grammar': cannot be read from {quoted!r}"

    error = from_message(PLACE, message, ())

    assert type(error) is InvalidInput
    assert error.param == "guided_grammar"


@pytest.mark.parametrize("failure", ["unhealthy vLLM engine", "engine failed: x"])
def test_a_failure_that_quotes_a_refusal_is_still_one(failure: str) -> None:
    message = f"{failure}: a caller wrote 'invalid request: x'"

    assert type(from_message(PLACE, message, ())) is EngineUnavailable


def test_what_triton_puts_around_a_models_words_is_left_out() -> None:
    message = (
        "[request id: job-1] Failed to process the request(s) for model instance 'm_0_0', "
        "message: ValueError: too hot\n\nAt:\n  /models/m/1/model.py(12): execute\n"
    )

    assert public_text(message, ()) == "ValueError: too hot"


def test_a_public_text_is_one_short_line() -> None:
    text = public_text("first line\n\tsecond   line " + "x" * 1000, ())

    assert text.startswith("first line second line xxx")
    assert text.endswith("x…")
    assert len(text) <= MAX_MESSAGE_CHARS


@pytest.mark.parametrize("message", ["", " \n ", "cannot read 'PIN 4711' here"])
def test_no_words_or_those_of_the_caller_become_a_stock_phrase(message: str) -> None:
    assert public_text(message, ["PIN 4711"]) == "the model refuses this input"


def test_a_prompt_of_a_few_letters_does_not_hide_the_reason() -> None:
    assert public_text("this is odd", ["is"]) == "this is odd"


@given(
    before=st.text(max_size=40),
    part=st.text("abcdefgh ", min_size=LEAK_CHARS + LEAK_STEP_CHARS, max_size=80),
    after=st.text(max_size=40),
)
def test_a_part_of_the_prompt_never_gets_out(before: str, part: str, after: str) -> None:
    prompt = "".join(["x", part, "y"])

    text = public_text(f"{before}{part}{after}", [prompt])

    assert text == "the model refuses this input"
