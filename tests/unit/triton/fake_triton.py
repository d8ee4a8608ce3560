"""A Triton in this process: the real protocol, a decoupled model and a batched one."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from tritonclient.grpc import service_pb2_grpc as services

from synapse.adapters.triton.generated import messages
from synapse.adapters.triton.tensors import decode_texts, encode_texts

GENERATOR = "generator"
TEXTS = "texts"
FLAGS = (
    "stream",
    "exclude_input_in_output",
    "return_finish_reason",
    "return_num_input_tokens",
    "return_num_output_tokens",
)
OPTIONAL_FLAGS = ("return_logprobs", "return_num_cached_tokens")


TEXT = ("BYTES", [1])


@dataclass(frozen=True)
class Generation:
    """What a stream was asked for, read from its tensors."""

    id: str
    prompt: str
    token_ids: tuple[int, ...]
    priority: int | None
    sampling: Mapping[str, Any]
    flags: Mapping[str, bool]
    empty_final: bool


class ModelError(Exception):
    """A model's own error; one without a code is what Triton says before a model is asked."""

    def __init__(self, text: str, code: grpc.StatusCode | None = None) -> None:
        super().__init__(text)
        self.code = code


@dataclass
class FakeTriton(services.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Serves at a unix socket and remembers what it was asked.

    An item that starts with `!`, or a generation's parameter "behave", says what is to become of
    it; another is generated word by word, or comes back in capitals.
    """

    address: str
    generations: list[Generation] = field(default_factory=list)
    batches: list[list[str]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    refusals: int = 0
    cut_refusals: int = 0
    running: int = 0
    most_running: int = 0
    probes: int = 0
    _server: Any = None

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server()
        services.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.address)
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    async def ServerLive(self, request: Any, context: Any) -> Any:
        self.probes += 1
        return messages.ServerLiveResponse(live=True)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        served = request.name in (GENERATOR, TEXTS) and request.version == "1"
        return messages.ModelReadyResponse(ready=served)

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        if request.model_name == GENERATOR:
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED,
                "ModelInfer RPC doesn't support models with decoupled transaction policy",
            )
        if problem := _unknown(request, TEXTS):
            await context.abort(grpc.StatusCode.NOT_FOUND, problem)
        texts = decode_texts(request.raw_input_contents[0])
        assert list(request.inputs[0].shape) == [len(texts), 1]
        self.batches.append(texts)
        finished = self._begin("\n".join(texts), context)
        try:
            for text in texts:
                await _misbehave(text)
        except ModelError as error:
            finished.set()
            await context.abort(error.code, str(error))
        finished.set()
        if "!no-output" in texts:
            return messages.ModelInferResponse()
        kept = [text.upper().encode() for text in texts if text != "!swallow"]
        return _answer(text_output=encode_texts(kept))

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            try:
                async for answer in self._answers(request, context):
                    yield messages.ModelStreamInferResponse(infer_response=answer)
            except ModelError as error:
                if error.code is not None:
                    await context.abort(error.code, str(error))
                yield messages.ModelStreamInferResponse(error_message=str(error))
                await self._end_slowly(str(error))

    async def _end_slowly(self, error: str) -> None:
        """A refusal is one response and the end another; who hangs up between them is counted."""
        self.refusals += 1
        try:
            await asyncio.sleep(60.0 if "endless" in error else 0.02)
        except asyncio.CancelledError:
            self.cut_refusals += 1
            raise

    async def _answers(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if problem := _unknown(request, GENERATOR):
            raise ModelError(problem)
        generation = _read(request)
        self.generations.append(generation)
        finished = self._begin(generation.prompt, context)
        try:
            async for answer in _generate(generation):
                yield answer
        except ModelError:
            finished.set()
            raise
        finished.set()

    def _begin(self, prompt: str, context: Any) -> asyncio.Event:
        """Count a run; it was cancelled if it ends before the event is set."""
        finished = asyncio.Event()

        def end(_: Any) -> None:
            self.running -= 1
            if not finished.is_set():
                self.cancelled.append(prompt)

        self.running += 1
        self.most_running = max(self.most_running, self.running)
        context.add_done_callback(end)
        return finished


def _unknown(request: Any, served: str) -> str:
    if request.model_name == served and request.model_version == "1":
        return ""
    return f"Request for unknown model: '{request.model_name}' is not found"


def _read(request: Any) -> Generation:
    kinds = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in request.inputs}
    raw = dict(zip(kinds, request.raw_input_contents, strict=True))
    token_ids = raw.get("prompt_token_ids", b"")
    ids = struct.unpack(f"<{len(token_ids) // 4}i", token_ids)
    prompt = ("prompt_token_ids", ("INT32", [len(ids)])) if ids else ("text_input", TEXT)
    flags = (*FLAGS, *(name for name in OPTIONAL_FLAGS if name in kinds))
    expected = dict([prompt, ("sampling_parameters", TEXT)])
    assert kinds == {**expected, **dict.fromkeys(flags, ("BOOL", [1]))}
    return Generation(
        id=request.id,
        prompt=" ".join(map(str, ids)) if ids else decode_texts(raw["text_input"])[0],
        token_ids=ids,
        priority=(
            request.parameters["request_priority"].int64_param
            if "request_priority" in request.parameters
            else None
        ),
        sampling=json.loads(decode_texts(raw["sampling_parameters"])[0]),
        flags={name: raw[name] == b"\1" for name in flags},
        empty_final=request.parameters["triton_enable_empty_final_response"].bool_param,
    )


async def _misbehave(text: str) -> None:
    match text.split(maxsplit=2):
        case ["!hang", *_]:
            await asyncio.Event().wait()
        case ["!sleep", seconds, *_]:
            await asyncio.sleep(float(seconds))
        case ["!status", code, words]:
            raise ModelError(words, grpc.StatusCode[code])
        case ["!message", *words]:
            raise ModelError(" ".join(words))


def _behaviour(generation: Generation) -> str:
    """One that is told for a seed is meant for the sample that has it."""
    by_seed = generation.sampling.get("behave_by_seed", {})
    told = by_seed.get(str(generation.sampling.get("seed")))
    return str(told or generation.sampling.get("behave", generation.prompt))


async def _generate(generation: Generation) -> AsyncIterator[Any]:
    """As the vLLM backend does: at once, or in deltas that may end in an empty final response."""
    prompt, flags = generation.prompt, generation.flags
    behave = _behaviour(generation)
    await _misbehave(behave)
    words = [f"{word} " for word in prompt.split()][: generation.sampling.get("max_tokens", 16)]
    if behave == "!garbled":
        yield messages.ModelInferResponse(raw_output_contents=[b"?"])
    if not flags["stream"]:
        text = "".join(words) if flags["exclude_input_in_output"] else prompt + "".join(words)
        reason = "length" if flags["return_finish_reason"] else "None"
        yield _part(text, reason, len(words), generation, final=behave != "!cut")
        return
    for at, word in enumerate(words):
        if behave == "!hang-after-two" and at == 2:
            await asyncio.Event().wait()
        if behave == "!pause-after-two" and at == 2:
            await asyncio.sleep(0.2)
        yield _part(word, "None", 1, generation)
    yield _part("", "length", 0, generation)
    if generation.empty_final and behave != "!cut":
        yield _answer(final=True)


def _part(
    text: str, reason: str, tokens: int, generation: Generation, *, final: bool = False
) -> Any:
    extra = {}
    if generation.flags.get("return_logprobs"):
        extra["logprobs"] = encode_texts([_logprobs(text).encode()])
    if generation.flags.get("return_num_cached_tokens") and reason != "None":
        extra["num_cached_tokens"] = (1).to_bytes(4, "little")
    if generation.flags["return_num_input_tokens"]:
        extra["num_input_tokens"] = len(generation.prompt.split()).to_bytes(4, "little")
    if generation.flags["return_num_output_tokens"]:
        extra["num_output_tokens"] = tokens.to_bytes(4, "little")
    return _answer(
        final=final,
        text_output=encode_texts([text.encode()]),
        finish_reason=encode_texts([reason.encode()]),
        **extra,
    )


def _logprobs(text: str) -> str:
    """As vLLM's: each word was the second best, and comes first all the same."""
    return json.dumps(
        [
            {
                "7": {"logprob": -2.0, "rank": 2, "decoded_token": f"{word} "},
                "3": {"logprob": -0.5, "rank": 1, "decoded_token": "best"},
            }
            for word in text.split()
        ]
    )


def _answer(*, final: bool = False, **raw: bytes) -> Any:
    response = messages.ModelInferResponse(raw_output_contents=list(raw.values()))
    for name in raw:
        response.outputs.add(name=name)
    response.parameters["triton_final_response"].bool_param = final
    return response
