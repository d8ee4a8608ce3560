"""Calls of the worker contract, written out with the official client."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from tritonclient.grpc import InferInput, InferResult
from tritonclient.grpc.aio import InferenceServerClient

from synapse_worker.supervisor import Supervisor
from tests.patience import PATIENCE_S

LLM = "smollm2-135m-instruct"
FLAGS = ("return_finish_reason", "return_num_input_tokens", "return_num_output_tokens")


@dataclass
class Answer:
    """A whole completion, put together from its responses."""

    texts: list[str] = field(default_factory=list)
    finish_reason: str = ""
    input_tokens: int = 0
    output_tokens: list[int] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def tensor(name: str, value: str | bytes | bool) -> InferInput:
    raw = value.encode() if isinstance(value, str) else value
    kind, dtype = ("BOOL", bool) if isinstance(value, bool) else ("BYTES", object)
    made = InferInput(name, [1], kind)
    made.set_data_from_numpy(np.array([raw], dtype=dtype))
    return made


def llm_inputs(
    prompt: str | bytes, sampling: Mapping[str, Any], tensors: Mapping[str, Any]
) -> list[InferInput]:
    given = {"exclude_input_in_output": True, **dict.fromkeys(FLAGS, True), **tensors}
    return [
        tensor("text_input", prompt),
        tensor("sampling_parameters", json.dumps({"temperature": 0, **sampling})),
        *(tensor(name, value) for name, value in given.items() if value is not None),
    ]


async def responses(
    client: InferenceServerClient, inputs: list[InferInput]
) -> AsyncGenerator[InferResult, None]:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": LLM, "inputs": inputs}

    stream = client.stream_infer(requests())
    try:
        async for result, error in stream:
            if error is not None:
                raise error
            yield result
    finally:
        stream.cancel()


async def generate(
    client: InferenceServerClient, prompt: str | bytes, *, stream: bool = False, **sampling: Any
) -> Answer:
    answer = Answer()
    async for result in responses(client, llm_inputs(prompt, sampling, {"stream": stream})):
        answer.texts.append(result.as_numpy("text_output")[0].decode())
        answer.finish_reason = result.as_numpy("finish_reason")[0].decode()
        answer.input_tokens = int(result.as_numpy("num_input_tokens")[0])
        answer.output_tokens.append(int(result.as_numpy("num_output_tokens")[0]))
    return answer


async def echo(client: InferenceServerClient, items: list[bytes], **parameters: int) -> list[bytes]:
    made = InferInput("text_input", [len(items), 1], "BYTES")
    made.set_data_from_numpy(np.array(items, dtype=object).reshape(-1, 1))
    result = await client.infer("echo", [made], parameters=parameters or None)
    return [bytes(item) for item in result.as_numpy("text_output").reshape(-1)]


async def load_is(triton: Supervisor, model: str, **expected: int) -> None:
    """Return when Triton's metrics page shows so many requests of the model in these states."""
    page = f"http://{triton.metrics_address}/metrics"
    wanted = {
        f'vllm:num_requests_{state}{{model="{model}",version="1"}} {count}'
        for state, count in expected.items()
    }
    async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient() as client:
        while not wanted <= set((await client.get(page)).text.splitlines()):
            await asyncio.sleep(0.02)
