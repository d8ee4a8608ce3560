"""The bytes of the Open Inference Protocol."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.adapters.triton.generated import messages
from synapse.adapters.triton.tensors import (
    UnreadableAnswer,
    decode_texts,
    encode_texts,
    generation_request,
    is_final,
    read_delta,
    read_texts,
    text_request,
)
from synapse.domain.extension import Extension
from synapse.domain.inference import Delta
from tests.factories import a_model


@given(st.lists(st.text()))
def test_texts_come_back_as_they_went(texts: list[str]) -> None:
    assert decode_texts(encode_texts([text.encode() for text in texts])) == texts


def test_a_text_is_its_length_and_its_bytes() -> None:
    assert encode_texts(["ü".encode(), b""]) == b"\x02\0\0\0\xc3\xbc\0\0\0\0"


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert decode_texts(encode_texts([b"\xff"])) == ["�"]


@pytest.mark.parametrize("raw", [b"\x05\0\0\0abc", b"\x01", b"\0\0\0\0\x09\0\0\0"])
def test_a_text_cut_off_is_unreadable(raw: bytes) -> None:
    with pytest.raises(UnreadableAnswer):
        decode_texts(raw)


def test_a_batch_has_a_row_for_each_text() -> None:
    request = text_request(a_model("m", version="3"), [b"a", b"bc"])

    assert (request.model_name, request.model_version) == ("m", "3")
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("text_input", "BYTES", [2, 1])


def test_generations_share_no_state() -> None:
    model = a_model("m")
    first = generation_request(model, "1", b"a", {"stop": ["\n"]}, stream=True)
    second = generation_request(model, "2", b"b", {}, stream=False)

    assert (first.id, second.id) == ("1", "2")
    assert len(first.raw_input_contents) == len(first.inputs) == 7
    assert first.raw_input_contents[1] == encode_texts([b'{"stop":["\\n"]}'])
    assert [raw[0] for raw in first.raw_input_contents[2:]] == [1, 1, 1, 1, 1]
    assert [raw[0] for raw in second.raw_input_contents[2:]] == [0, 1, 1, 1, 1]
    # Lists, which gRPC parameters cannot hold, are in the tensor; nothing else is a parameter.
    assert list(first.parameters) == ["triton_enable_empty_final_response"]


@pytest.mark.parametrize(
    ("share", "sent"), [(0, b"1e-09"), (0.0, b"1e-09"), (0.5, b"0.5"), (1, b"1")]
)
def test_a_share_of_nothing_leaves_the_likeliest_token_alone(share: float, sent: bytes) -> None:
    # OpenAI takes 0, which engines refuse.
    request = generation_request(a_model("m"), "1", b"a", {"top_p": share}, stream=False)

    assert request.raw_input_contents[1] == encode_texts([b'{"top_p":' + sent + b"}"])


@pytest.mark.parametrize("priority", [-1, 1])
def test_a_priority_goes_to_workers_that_know_it_and_to_no_others(priority: int) -> None:
    knows = a_model("m", extensions=frozenset({Extension.PRIORITY}))

    for request in (
        text_request(knows, [b"a"], priority),
        generation_request(knows, "1", b"a", {}, False, priority),
    ):
        assert request.parameters["request_priority"].int64_param == priority
    assert "request_priority" not in text_request(a_model("m"), [b"a"], priority).parameters
    assert "request_priority" not in text_request(knows, [b"a"]).parameters


def test_the_vllm_backends_outputs_are_read_by_name() -> None:
    response = messages.ModelInferResponse()
    for name, raw in {
        "num_output_tokens": (7).to_bytes(4, "little"),
        "text_output": encode_texts([b"hi"]),
        "cumulative_logprob": b"\0\0\0\0",
        "finish_reason": encode_texts([b"stop"]),
        "num_input_tokens": (300).to_bytes(4, "little"),
    }.items():
        response.outputs.add(name=name)
        response.raw_output_contents.append(raw)

    assert read_delta(response) == Delta("hi", 300, 7, "stop")


@pytest.mark.parametrize("reason", [b"", b"None"])
def test_no_reason_is_no_reason(reason: bytes) -> None:
    response = messages.ModelInferResponse(raw_output_contents=[encode_texts([reason])])
    response.outputs.add(name="finish_reason")

    assert read_delta(response) == Delta()


def test_asking_for_the_end_changes_nothing() -> None:
    response = messages.ModelInferResponse()

    assert not is_final(response)
    assert not response.parameters

    response.parameters["triton_final_response"].bool_param = True
    assert is_final(response)


@pytest.mark.parametrize("answered", [[], [b"a"], [b"a", b"b", b"c"]])
def test_a_batch_with_other_than_its_items_is_unreadable(answered: list[bytes]) -> None:
    response = messages.ModelInferResponse(raw_output_contents=[encode_texts(answered)])
    response.outputs.add(name="text_output")

    with pytest.raises(UnreadableAnswer):
        read_texts(response, 2)
