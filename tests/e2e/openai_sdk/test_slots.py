"""Many streams at once, and what becomes of those whose client goes away."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import httpx2
import pytest
from openai import APIStatusError, AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.one_machine.running import Server
from tests.e2e.openai_sdk.target import LLM
from tests.patience import PATIENCE_S

STORY: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Tell a story."}]
STREAMS = 200
LONG = 1500
SLOTS = 32

one_machine = pytest.mark.parametrize("target", ["one machine"], indirect=True)


def _engine_runs(server: Server) -> int:
    """How many answers the engine itself says that it is writing, on Triton's own page."""
    [triton] = [
        command
        for pid in server.descendants()
        if "--metrics-port=" in (command := _command_line(pid))
    ]
    port = triton.split("--metrics-port=")[1].split("\0")[0]
    page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    [value] = [
        line.split()[-1]
        for line in page.splitlines()
        if line.startswith("vllm:num_requests_running{") and LLM in line
    ]
    return int(float(value))


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _wait_until_the_engine_runs(server: Server, count: int, seconds: float = PATIENCE_S) -> None:
    started = time.monotonic()
    while (runs := _engine_runs(server)) != count:
        assert time.monotonic() - started < seconds, f"the engine still runs {runs}"
        time.sleep(0.05)


def _half_of_long_s(client: OpenAI) -> float:
    """In how many seconds the engine writes half of `LONG` at the most, as this machine is now.

    What is freed within that time has not come to its own end.
    """
    started = time.monotonic()
    client.chat.completions.create(
        model=LLM, messages=STORY, max_tokens=LONG // 10, extra_body={"ignore_eos": True}
    )
    return 5 * (time.monotonic() - started)


@pytest.fixture
async def patient(sdk_server: Server, sdk_key: str) -> AsyncIterator[AsyncOpenAI]:
    """A client with a connection for each stream."""
    limits = httpx2.Limits(max_connections=STREAMS)
    async with (
        httpx2.AsyncClient(limits=limits, timeout=PATIENCE_S) as connections,
        AsyncOpenAI(
            base_url=f"{sdk_server.url}/v1",
            api_key=sdk_key,
            max_retries=0,
            timeout=PATIENCE_S,
            http_client=connections,
        ) as client,
    ):
        yield client


async def test_two_hundred_streams_at_once_are_all_answered(patient: AsyncOpenAI) -> None:
    async def one() -> tuple[str, str | None]:
        text, reason = "", None
        async for chunk in await patient.chat.completions.create(
            model=LLM,
            messages=STORY,
            max_tokens=2,
            stream=True,
            extra_body={"ignore_eos": True},
        ):
            text += chunk.choices[0].delta.content or ""
            reason = chunk.choices[0].finish_reason
        return text, reason

    await one()  # until a model's speed was measured, fewer are let in
    answers = await asyncio.gather(*(one() for _ in range(STREAMS)))

    assert {reason for _, reason in answers} == {"length"}


@one_machine
def test_an_abandoned_stream_frees_its_slot_in_the_engine(
    client: OpenAI, sdk_server: Server
) -> None:
    _wait_until_the_engine_runs(sdk_server, 0)
    half_s = _half_of_long_s(client)
    stream = client.chat.completions.create(
        model=LLM, messages=STORY, max_tokens=LONG, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    _wait_until_the_engine_runs(sdk_server, 1)

    stream.close()

    _wait_until_the_engine_runs(sdk_server, 0, half_s)


KILLED = f"""
import sys
from openai import OpenAI
client = OpenAI(base_url=sys.argv[1], api_key=sys.argv[2])
streams = [
    client.chat.completions.create(
        model="{LLM}", messages={STORY!r}, max_tokens={LONG}, stream=True,
        extra_body={{"ignore_eos": True}},
    )
    for _ in range({SLOTS})
]
for stream in streams:
    next(iter(stream))
print("all stream", flush=True)
sys.stdin.read()
"""


@one_machine
def test_a_killed_client_frees_all_slots_and_flex_waits_for_none(
    client: OpenAI, sdk_server: Server
) -> None:
    half_s = _half_of_long_s(client)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, f"{sdk_server.url}/v1", client.api_key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "all stream\n"
        _wait_until_the_engine_runs(sdk_server, SLOTS)
        with pytest.raises(APIStatusError) as refused:
            client.chat.completions.create(
                model=LLM, messages=STORY, max_tokens=1, service_tier="flex"
            )
        other.kill()

    _wait_until_the_engine_runs(sdk_server, 0, half_s)
    assert refused.value.status_code == 503
    assert refused.value.code == "engine_overloaded"
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 120
    answer = client.chat.completions.create(
        model=LLM, messages=STORY, max_tokens=1, service_tier="flex"
    )
    assert answer.choices
