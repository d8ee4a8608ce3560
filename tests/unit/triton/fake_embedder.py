"""An embedding model in the fake Triton: of each input its length, and how many came with it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import grpc

from synapse.adapters.triton.generated import messages
from synapse.adapters.triton.tensors import decode_texts
from tests.unit.triton.fake_triton import FakeTriton, ModelError, _misbehave

EMBEDDER = "embedder"
NO_TOKEN = -1
PROBLEMS = {
    " ": "is empty",
    "!long": "600 tokens are more than the model's maximum context length of 512",
}


@dataclass(frozen=True)
class Embedding:
    """A call's inputs, of token ids without the padding."""

    inputs: list[Any]


@dataclass
class FakeEmbedder(FakeTriton):
    """Embeds as its worker does: `[length, inputs in the call]`, a token for each character.

    An input may misbehave as in FakeTriton; " " and "!long" are refused.
    """

    embeddings: list[Embedding] = field(default_factory=list)

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        assert (request.model_name, request.model_version) == (EMBEDDER, "1")
        assert [each.name for each in request.outputs] == ["embedding", "num_input_tokens"]
        inputs = _inputs(request)
        self.embeddings.append(Embedding(inputs))
        finished = self._begin(str(inputs), context)
        try:
            for at, each in enumerate(inputs):
                await _misbehave(str(each))
                if each in PROBLEMS:
                    problem = f"invalid request: input.{at}: {PROBLEMS[each]}"
                    raise ModelError(problem, grpc.StatusCode.INVALID_ARGUMENT)
        except ModelError as error:
            finished.set()
            assert error.code is not None
            await context.abort(error.code, str(error))
        finished.set()
        return _answer(inputs)


def _inputs(request: Any) -> list[Any]:
    (tensor,), (raw,) = request.inputs, request.raw_input_contents
    if tensor.name == "text_input":
        texts = decode_texts(raw)
        assert (tensor.datatype, list(tensor.shape)) == ("BYTES", [len(texts), 1])
        return texts
    assert (tensor.name, tensor.datatype) == ("input_ids", "INT32")
    rows, longest = tensor.shape
    ids = struct.unpack(f"<{rows * longest}i", raw)
    each = [ids[at * longest : (at + 1) * longest] for at in range(rows)]
    return [tuple(one for one in row if one != NO_TOKEN) for row in each]


def _answer(inputs: list[Any]) -> Any:
    vectors = [struct.pack("<2f", len(each), len(inputs)) for each in inputs]
    counts = [len(each) for each in inputs]
    if "!short" in inputs:
        vectors.pop()
    if "!uncounted" in inputs:
        counts.pop()
    response = messages.ModelInferResponse(
        raw_output_contents=[b"".join(vectors), struct.pack(f"<{len(counts)}I", *counts)]
    )
    response.outputs.add(name="embedding")
    response.outputs.add(name="num_input_tokens")
    return response
