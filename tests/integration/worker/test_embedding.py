"""MiniLM through a real Triton: what sentence-transformers makes of the same texts, and refusals.

The vectors to compare with were made once with sentence-transformers itself, which needs PyTorch.
"""

import asyncio
import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.integration.worker.conftest import EMBEDDER

REFERENCE = json.loads(Path(__file__).with_name("minilm_reference.json").read_text("utf-8"))
TEXTS = [entry["text"] for entry in REFERENCE["vectors"]]
VECTORS = np.stack([np.frombuffer(b64decode(e["vector"]), "<f4") for e in REFERENCE["vectors"]])
NO_TOKEN = -1

pytestmark = pytest.mark.asyncio(loop_scope="session")


def texts(*items: str | bytes) -> InferInput:
    made = InferInput("text_input", [len(items), 1], "BYTES")
    raw = [item if isinstance(item, bytes) else item.encode() for item in items]
    made.set_data_from_numpy(np.array(raw, dtype=object).reshape(-1, 1))
    return made


def ids(*rows: list[int]) -> InferInput:
    longest = max(map(len, rows))
    padded = [[*row, *[NO_TOKEN] * (longest - len(row))] for row in rows]
    made = InferInput("input_ids", [len(rows), longest], "INT32")
    made.set_data_from_numpy(np.array(padded, dtype=np.int32))
    return made


async def embed(client: InferenceServerClient, *inputs: InferInput) -> Any:
    return await client.infer(EMBEDDER, list(inputs))


async def vectors(client: InferenceServerClient, *inputs: InferInput) -> NDArray[np.float32]:
    found: NDArray[np.float32] = (await embed(client, *inputs)).as_numpy("embedding")
    return found


async def refusal(client: InferenceServerClient, *inputs: InferInput) -> str:
    with pytest.raises(InferenceServerException) as caught:
        await embed(client, *inputs)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    return str(caught.value.message())


async def test_vectors_are_those_of_sentence_transformers(client: InferenceServerClient) -> None:
    found = await vectors(client, texts(*TEXTS))

    assert found.shape == (len(TEXTS), 384)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.sum(found * VECTORS, axis=1).min() > 0.9999


async def test_who_else_is_in_the_batch_changes_nothing(client: InferenceServerClient) -> None:
    alone = await asyncio.gather(*(vectors(client, texts(text)) for text in TEXTS))

    assert np.sum(np.concatenate(alone) * VECTORS, axis=1).min() > 0.9999


async def test_tokens_are_counted_with_those_that_begin_and_end_a_text(
    client: InferenceServerClient,
) -> None:
    found = await embed(client, texts("hello", "hello there"))

    assert found.as_numpy("num_input_tokens").reshape(-1).tolist() == [3, 4]


async def test_token_ids_mean_what_their_text_means(client: InferenceServerClient) -> None:
    found = await vectors(client, ids([101, 7592, 2045, 102], [101, 7592, 102], [101, 102]))
    expected = await vectors(client, texts("hello there", "hello", " "))

    assert np.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("row", [[9906, 1917, 0], [7592], [101, 7592], [7592, 102], [101], []])
async def test_ids_that_are_not_the_models_own_are_refused(
    client: InferenceServerClient, row: list[int]
) -> None:
    message = await refusal(client, ids([101, 7592, 102], row))

    assert "input.1: ids must be the model's own, from 101 to 102; or send the text" in message
    assert "check_embedding_ctx_length=False" in message


@pytest.mark.parametrize("blank", [" ", "\n", "\t "])
async def test_a_blank_text_has_a_vector_too(client: InferenceServerClient, blank: str) -> None:
    found = await embed(client, texts("hello", blank))

    assert found.as_numpy("num_input_tokens").reshape(-1).tolist() == [3, 2]
    assert np.allclose(np.linalg.norm(found.as_numpy("embedding"), axis=1), 1, atol=1e-5)


async def test_512_tokens_are_read_whole_and_one_more_is_refused(
    client: InferenceServerClient,
) -> None:
    most = "word " * 510

    assert (await embed(client, texts(most))).as_numpy("num_input_tokens").item() == 512
    message = await refusal(client, texts("short", most + "word"))

    assert "input.1: 513 tokens are more than the model's maximum context length of 512" in message


async def test_what_cannot_be_embedded_is_named(client: InferenceServerClient) -> None:
    assert "input.1: is empty" in await refusal(client, texts("a", ""))
    assert "input.1: is not UTF-8" in await refusal(client, texts("a", b"\xff\xfe"))
    assert "input.1: 30522 is no token id" in await refusal(client, ids([101, 102], [30522]))
    assert "check_embedding_ctx_length=False" in await refusal(client, ids([70000]))
    assert "input.0: -7 is no token id" in await refusal(client, ids([101, -7, 102]))
    assert "either" in await refusal(client, texts("a"), ids([5]))


async def test_bad_requests_do_not_spoil_those_they_are_batched_with(
    client: InferenceServerClient,
) -> None:
    async def good(at: int) -> float:
        found = await vectors(client, texts(TEXTS[at % len(TEXTS)]))
        return float(found[0] @ VECTORS[at % len(TEXTS)])

    async def bad(_: int) -> float:
        assert "is empty" in await refusal(client, texts("fine", ""))
        return 1.0

    likenesses = await asyncio.gather(*(bad(at) if at % 3 == 0 else good(at) for at in range(60)))

    assert min(likenesses) > 0.9999


async def test_a_call_may_not_be_larger_than_the_batch(client: InferenceServerClient) -> None:
    assert (await vectors(client, texts(*["a"] * 32))).shape == (32, 384)
    assert "batch-size" in await refusal(client, texts(*["a"] * 33))
