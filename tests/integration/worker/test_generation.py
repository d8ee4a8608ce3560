"""The language model behind a real Triton, held to the contract of Triton's vLLM backend."""

import asyncio
import json
import urllib.request
from contextlib import aclosing
from typing import Any

import pytest
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from synapse_worker.supervisor import Supervisor
from tests.integration.worker.calls import (
    FLAGS,
    LLM,
    echo,
    generate,
    llm_inputs,
    load_is,
    responses,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROMPT = "The future of AI is"
CHAT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
SLOTS = 32


async def test_an_answer_in_one_piece_with_usage_and_reason(client: InferenceServerClient) -> None:
    answer = await generate(client, PROMPT, max_tokens=8)

    assert len(answer.texts) == 1
    assert answer.text.strip()
    assert not answer.text.startswith(PROMPT)
    assert (answer.input_tokens, answer.output_tokens) == (5, [8])
    assert answer.finish_reason == "length"


async def test_a_stream_gives_deltas_that_add_up_to_the_same(client: InferenceServerClient) -> None:
    whole = await generate(client, PROMPT, max_tokens=8)
    streamed = await generate(client, PROMPT, max_tokens=8, stream=True)

    assert len(streamed.texts) > 4
    assert streamed.text == whole.text
    assert sum(streamed.output_tokens) == 8
    assert streamed.input_tokens == 5
    assert streamed.finish_reason == "length"


async def test_control_tokens_in_a_raw_prompt_are_understood(client: InferenceServerClient) -> None:
    answer = await generate(client, CHAT, max_tokens=32)

    assert "Paris" in answer.text
    assert answer.finish_reason == "stop", "the model ends its turn by itself"
    assert answer.input_tokens < 20


async def test_without_the_flag_the_answer_contains_the_prompt(
    client: InferenceServerClient,
) -> None:
    inputs = llm_inputs(PROMPT, {"max_tokens": 2}, {"exclude_input_in_output": None})

    (result,) = [r async for r in responses(client, inputs)]

    assert result.as_numpy("text_output")[0].decode().startswith(PROMPT)


async def test_extra_outputs_come_only_when_asked_for(client: InferenceServerClient) -> None:
    flags = dict.fromkeys(FLAGS)

    (result,) = [r async for r in responses(client, llm_inputs(PROMPT, {"max_tokens": 2}, flags))]

    assert [output.name for output in result.get_response().outputs] == ["text_output"]


async def test_a_stop_string_ends_the_answer_and_is_not_in_it(
    client: InferenceServerClient,
) -> None:
    free = await generate(client, PROMPT, max_tokens=12)
    word = free.text.split()[3]

    for stream in (False, True):
        stopped = await generate(client, PROMPT, max_tokens=12, stop=[word], stream=stream)
        assert stopped.finish_reason == "stop"
        assert stopped.text == free.text.split(word)[0]


async def test_temperature_zero_and_a_seed_repeat_themselves(client: InferenceServerClient) -> None:
    greedy = [await generate(client, PROMPT, max_tokens=8) for _ in range(2)]
    sampling: dict[str, Any] = {"max_tokens": 8, "temperature": 1.5}
    seeded = [await generate(client, PROMPT, **sampling, seed=42) for _ in range(2)]
    others = [await generate(client, PROMPT, **sampling, seed=seed) for seed in range(3)]

    assert greedy[0].text == greedy[1].text
    assert seeded[0].text == seeded[1].text
    assert len({answer.text for answer in [*seeded, *others]}) > 1


@pytest.mark.parametrize(
    "penalty",
    [
        {"presence_penalty": 2.0},
        {"presence_penalty": -2.0},
        {"frequency_penalty": 2.0},
        {"frequency_penalty": -2.0},
        {"repetition_penalty": 1.5},
    ],
    ids=str,
)
async def test_penalties_change_what_is_written(
    client: InferenceServerClient, penalty: dict[str, Any]
) -> None:
    again = "one two three one two three one two three one two"

    usual = await generate(client, again, max_tokens=24, temperature=0)
    penalised = await generate(client, again, max_tokens=24, temperature=0, **penalty)

    assert penalised.output_tokens == [24]
    assert penalised.text != usual.text


async def test_penalties_count_all_that_was_written_and_not_only_its_end(
    client: InferenceServerClient,
) -> None:
    commas: dict[str, Any] = {"logit_bias": {"28": 60}, "temperature": 0, "ignore_eos": True}

    answer = await generate(client, PROMPT, max_tokens=200, frequency_penalty=2.0, **commas)

    # Forty or so make up for the bias; of the last 64 tokens alone half would be, to the end.
    assert 20 < answer.text.count(",") < 60
    assert answer.text[-100:].count(",") < 10


async def test_characters_of_several_tokens_are_never_torn(client: InferenceServerClient) -> None:
    family = "👩\N{ZERO WIDTH JOINER}👩\N{ZERO WIDTH JOINER}👧"
    prompt = f"<|im_start|>user\nOnly emojis<|im_end|>\n<|im_start|>assistant\n🎉🚀{family}🎉🚀"

    answer = await generate(client, prompt, max_tokens=24, stream=True, ignore_eos=True)

    assert any(ord(char) > 0xFFFF for char in answer.text)
    assert "\N{REPLACEMENT CHARACTER}" not in answer.text


@pytest.mark.parametrize(
    ("prompt", "sampling", "message"),
    [
        (PROMPT, {"temprature": 1}, "'temprature' is not supported"),
        (PROMPT, {"max_tokens": -5}, "'max_tokens' must be 1 to"),
        (PROMPT, {"n": 2}, "'n' supports only 1"),
        (PROMPT, {"guided_grammar": "root ::= ((("}, "grammar"),
        (PROMPT, {"guided_json": {"type": "nonsense"}}, "cannot apply this schema"),
        (PROMPT, {"logit_bias": {"49152": 1}}, "'logit_bias' has ids that are not in"),
        ("word " * 2500, {}, "exceeds the available context size"),
        ("", {}, "must not be empty"),
        (b"\xff", {}, "not UTF-8"),
    ],
)
async def test_a_bad_request_is_told_so(
    client: InferenceServerClient, prompt: str | bytes, sampling: dict[str, Any], message: str
) -> None:
    with pytest.raises(InferenceServerException, match=f"invalid request: .*{message}"):
        await generate(client, prompt, **sampling)


async def test_output_can_be_held_to_a_schema_a_choice_and_a_pattern(
    client: InferenceServerClient,
) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    person = await generate(client, "A person:", max_tokens=60, guided_json=schema)
    chosen = await generate(client, "Is the sky blue?", guided_choice=["perhaps", "maybe"])
    number = await generate(
        client, "Call", max_tokens=20, structured_outputs={"regex": "[0-9]{3}/[0-9]{2}"}
    )

    assert set(json.loads(person.text)) == {"name", "age"}
    assert chosen.text in ("perhaps", "maybe")
    assert number.text.replace("/", "").isdigit()
    assert len(number.text) == 6


async def test_logprobs_come_in_the_shape_of_vllm(client: InferenceServerClient) -> None:
    inputs = llm_inputs(
        PROMPT,
        {"max_tokens": 3, "logprobs": 2},
        {"return_logprobs": True, "return_cumulative_logprob": True},
    )

    (result,) = [r async for r in responses(client, inputs)]

    tokens = json.loads(result.as_numpy("logprobs")[0])
    best = [min(token.values(), key=lambda entry: entry["rank"]) for token in tokens]
    assert [len(token) for token in tokens] == [2, 2, 2]
    assert "".join(entry["decoded_token"] for entry in best) == (
        result.as_numpy("text_output")[0].decode()
    )
    assert result.as_numpy("cumulative_logprob")[0] == pytest.approx(
        sum(entry["logprob"] for entry in best), rel=1e-4
    )


async def test_as_many_answers_as_there_are_slots_at_once(client: InferenceServerClient) -> None:
    answers = await asyncio.gather(
        *(generate(client, f"Number {i} is", max_tokens=4, ignore_eos=True) for i in range(SLOTS))
    )

    assert [answer.output_tokens for answer in answers] == [[4]] * SLOTS


async def test_a_cancelled_answer_gives_its_slot_back(client: InferenceServerClient) -> None:
    endless = {"max_tokens": 2000, "ignore_eos": True}

    async def abandon(number: int) -> None:
        inputs = llm_inputs(f"Count {number}", endless, {"stream": True})
        async for _ in responses(client, inputs):
            return

    await asyncio.gather(*(abandon(number) for number in range(SLOTS)))

    # All slots were taken for minutes to come.
    async with asyncio.timeout(30):
        await generate(client, PROMPT, max_tokens=2)


async def test_what_runs_is_on_the_metrics_page(
    triton: Supervisor, client: InferenceServerClient
) -> None:
    await load_is(triton, LLM, running=0)
    inputs = llm_inputs("Count", {"max_tokens": 2000, "ignore_eos": True}, {"stream": True})
    async with aclosing(responses(client, inputs)) as answers:
        await anext(answers)
        await load_is(triton, LLM, running=1)
    await load_is(triton, LLM, running=0)


async def test_triton_serves_it_over_http_too(
    triton: Supervisor, client: InferenceServerClient
) -> None:
    body = {"text_input": PROMPT, "parameters": {"max_tokens": 2, "temperature": "0"}}
    request = urllib.request.Request(
        f"http://{triton.http_address}/v2/models/{LLM}/generate", json.dumps(body).encode()
    )

    def send() -> dict[str, Any]:
        with urllib.request.urlopen(request) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    assert (await asyncio.to_thread(send))["text_output"].startswith(PROMPT)


async def test_echo_answers_a_full_batch_in_order(client: InferenceServerClient) -> None:
    items = [f"item {i} ü".encode() for i in range(512)]

    assert await echo(client, items) == items


async def test_a_poisoned_item_fails_its_own_request_only(client: InferenceServerClient) -> None:
    poisoned, healthy = await asyncio.gather(
        echo(client, [b"a", b"!fail", b"b"]), echo(client, [b"c"]), return_exceptions=True
    )

    assert isinstance(poisoned, InferenceServerException)
    assert "an item asked to fail" in str(poisoned)
    assert healthy == [b"c"]
