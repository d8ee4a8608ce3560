"""Limits at the front door: statuses, codes and headers on every way in, as OpenAI's SDK reads."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

import httpx2
import openai
import pytest

from synapse.api.asgi import AsgiApp
from synapse.api.resolver import Api
from synapse.application.metered_jobs import MeteredJobs
from synapse.application.metering import Metering
from synapse.application.seats import Seat, Seats
from synapse.domain.access import Limits, Principal
from synapse.domain.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidInput,
    Overloaded,
)
from synapse.domain.inference import Completion
from synapse.domain.job import JobState, SlaTier, Usage
from synapse.domain.metering import NANO, NOTHING_USED, Counts, MeterId, Reservation, ReservationId
from synapse.domain.routing import PoolView
from synapse.ports import Entry, InferenceRequest
from tests.factories import a_chat_model, a_pool
from tests.fake_meter import MemoryMeter
from tests.fakes import FakeClock, MemoryJobStore, MemoryRegistry, ScriptedEngine
from tests.unit.api.calls import Answered, api_of, call
from tests.unit.application.world import CHAT, EMBEDDER, World

KEY, TENANT = MeterId("default", "key1"), MeterId("default")
MESSAGES = [{"role": "user", "content": "say hello"}]
CHAT_BODY = {"model": CHAT, "messages": MESSAGES, "max_tokens": 20}
WAYS_IN: Mapping[str, dict[str, Any]] = {
    "/async-infer": {"model": "echo", "prompt": "hello", "parameters": {"max_tokens": 20}},
    "/api/inference": {"model": "echo", "data": {"text": "x"}, "parameters": {"max_tokens": 20}},
    "/v1/chat/completions": CHAT_BODY,
    "/v1/completions": {"model": CHAT, "prompt": "hello", "max_tokens": 20},
    "/v1/responses": {"model": CHAT, "input": "say hello", "max_output_tokens": 20},
    "/v1/embeddings": {"model": EMBEDDER, "input": "hello"},
}


class LimitedWorld:
    """The API for one caller with these limits; `shared` are its tenant's."""

    def __init__(
        self, limits: Limits | None = None, shared: Limits | None = None, **world: Any
    ) -> None:
        clock = FakeClock()
        self.calls = 0
        self.meter = MemoryMeter()
        metering = Metering(self.meter, self.views, clock)
        store = MeteredJobs(MemoryJobStore(clock), metering)
        self.world = World(clock=clock, store=store, metering=metering, **world)
        self.caller = Principal(
            "default", "key1", limits=limits or Limits(), tenant_limits=shared or Limits()
        )

    @property
    def api(self) -> Api:
        return api_of(self.world, self.identify)

    async def identify(self, event: Mapping[str, Any]) -> Principal:
        self.calls += 1
        return self.caller

    async def views(self, spec: Any, tier: Any) -> list[PoolView]:
        views: list[PoolView] = await self.world.fleet.routing.views(spec, tier)
        return views

    async def post(self, path: str, **changes: Any) -> Answered:
        return await call(self.api, "POST", path, {**WAYS_IN[path], **changes})

    def counts(self, meter: MeterId = KEY) -> Counts:
        return self.meter.counts(meter, self.world.clock())


@pytest.mark.parametrize("path", WAYS_IN)
async def test_every_way_in_ends_at_the_limit_with_429_and_when_to_come_again(path: str) -> None:
    limited = LimitedWorld(Limits(requests_per_minute=2))
    for left in (1, 0):
        answer = await limited.post(path)
        assert answer.status in (200, 202), answer.text
        assert answer.headers["x-ratelimit-limit-requests"] == "2"
        assert answer.headers["x-ratelimit-remaining-requests"] == str(left)
        assert answer.headers["x-ratelimit-reset-requests"] == "39.75s"

    refused = await limited.post(path)

    assert refused.status == 429
    assert (refused.error["type"], refused.error["code"]) == (
        "rate_limit_error",
        "rate_limit_exceeded",
    )
    assert refused.headers["retry-after"] == "40"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    limited.world.clock.advance(40)
    assert (await limited.post(path)).status in (200, 202)


@pytest.mark.parametrize("path", ["/async-infer", "/api/inference"])
async def test_of_a_job_that_names_no_length_the_engines_own_counts(path: str) -> None:
    limited = LimitedWorld(Limits(max_tokens_per_request=100))

    answer = await limited.post(path, model=CHAT, parameters={})

    assert answer.status in (200, 202), answer.text
    assert 16 < limited.counts().tokens < 20


@pytest.mark.parametrize("path", WAYS_IN)
async def test_no_way_in_goes_round_the_month(path: str) -> None:
    limited = LimitedWorld(shared=Limits(monthly_usd=0.0))
    refused = await limited.post(path)
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
    assert refused.error["type"] == "insufficient_quota"
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers


@pytest.mark.parametrize("path", WAYS_IN)
async def test_who_comes_while_the_money_is_only_reserved_is_told_to_come_again(path: str) -> None:
    limited = LimitedWorld(shared=Limits(monthly_usd=1.0))
    other = ReservationId("default", "a batch", int(limited.world.clock()) + 3600)
    held = Reservation(other, (TENANT,), limited.world.clock(), 1, NANO)
    await limited.meter.reserve(held, {TENANT: limited.caller.tenant_limits})

    refused = await limited.post(path)

    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers["retry-after"] == "2"
    assert "x-should-retry" not in refused.headers
    assert "reserved by jobs and requests under way" in refused.error["message"]
    await limited.meter.settle(other, NOTHING_USED)
    assert (await limited.post(path)).status in (200, 202)


@pytest.mark.parametrize("path", WAYS_IN)
async def test_a_caller_without_limits_is_not_counted(path: str) -> None:
    limited = LimitedWorld()
    answer = await limited.post(path)
    assert answer.status in (200, 202)
    assert limited.meter.entries == []
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


@pytest.mark.parametrize("path", [path for path in WAYS_IN if path != "/v1/embeddings"])
async def test_one_request_may_not_ask_for_too_many_tokens(path: str) -> None:
    limited = LimitedWorld(Limits(max_tokens_per_request=15))
    refused = await limited.post(path)
    assert refused.status == 400
    assert str(refused.error["param"]).endswith(("max_tokens", "max_output_tokens"))
    assert "15 tokens" in refused.error["message"]
    assert limited.meter.entries == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "max_tokens"),
        ("/v1/chat/completions", "max_completion_tokens"),
        ("/v1/responses", "max_output_tokens"),
    ],
)
async def test_too_many_tokens_are_told_under_the_name_that_the_caller_used(
    path: str, name: str
) -> None:
    limited = LimitedWorld(Limits(max_tokens_per_request=15))
    asked = {"input": "hello"} if path == "/v1/responses" else {"messages": MESSAGES}
    body = {"model": CHAT, **asked, name: 20}
    refused = await call(limited.api, "POST", path, body)
    assert (refused.status, refused.error["param"]) == (400, name)
    assert refused.error["message"].startswith(f"{name}: ")


OPEN = {"model": CHAT, "messages": MESSAGES}


async def test_a_response_that_leaves_its_length_open_may_have_what_the_limits_leave() -> None:
    limited = LimitedWorld(Limits(max_tokens_per_request=100))
    answer = await limited.post("/v1/responses", max_output_tokens=None)

    assert answer.status == 200
    _, _, (request,) = limited.world.engine.calls[-1]
    assert 0 < request.input.parameters["max_tokens"] < 100


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize(
    "limits",
    [Limits(max_tokens_per_request=100), Limits(tokens_per_minute=100)],
)
async def test_who_leaves_the_length_open_may_have_what_the_limits_leave(
    limits: Limits, samples: int, stream: bool
) -> None:
    limited = LimitedWorld(limits)
    body = {**OPEN, "n": samples, "stream": stream}
    answer = await call(limited.api, "POST", "/v1/chat/completions", body)

    assert answer.status == 200
    _, _, (request,) = limited.world.engine.calls[-1]
    prompt = request.input.size_bytes // 4 + 1
    assert request.input.parameters["max_tokens"] == (100 - prompt) // samples


async def test_what_has_to_be_written_is_not_more_than_the_limits_leave() -> None:
    limited = LimitedWorld(Limits(max_tokens_per_request=100))
    path = "/v1/chat/completions"
    refused = await call(limited.api, "POST", path, {**OPEN, "min_tokens": 99})
    fits = await call(limited.api, "POST", path, {**OPEN, "min_tokens": 50})

    assert (refused.status, refused.error["param"]) == (400, "min_tokens")
    assert "the limits of this key" in refused.error["message"]
    assert fits.status == 200


async def test_a_length_that_is_left_open_stays_so_where_nothing_limits_it() -> None:
    for limits in (Limits(), Limits(max_tokens_per_request=10**6), Limits(requests_per_minute=5)):
        limited = LimitedWorld(limits)
        assert (await call(limited.api, "POST", "/v1/chat/completions", OPEN)).status == 200
        _, _, (request,) = limited.world.engine.calls[-1]
        assert request.input.parameters["max_tokens"] is None


async def test_a_prompt_that_leaves_no_room_is_refused_though_the_length_is_open() -> None:
    limited = LimitedWorld(Limits(max_tokens_per_request=15))
    turns = [{"role": "user", "content": "x" * 80}]
    refused = await call(limited.api, "POST", "/v1/chat/completions", {**OPEN, "messages": turns})

    assert (refused.status, refused.error["param"]) == (400, "max_tokens")
    assert limited.world.engine.calls == []


LONG = "word " * 1000
LONG_TOOL = {"type": "function", "function": {"name": "look", "description": LONG}}
LONG_CALL = {"name": "look", "arguments": json.dumps({"text": LONG})}
LONG_TALK = [
    {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": LONG_CALL}]},
    {"role": "tool", "tool_call_id": "a", "content": "ok"},
]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"tools": [LONG_TOOL]}, "its tools"),
        ({"messages": [*MESSAGES, *LONG_TALK]}, "1000 tokens"),
    ],
    ids=["tools", "earlier calls"],
)
async def test_tools_and_earlier_calls_of_them_count_as_tokens(
    body: dict[str, Any], told: str
) -> None:
    limits = Limits(max_tokens_per_request=1000)
    registry = MemoryRegistry([a_chat_model(CHAT, tool_parser="hermes")], [a_pool()])
    limited = LimitedWorld(limits, registry=registry)
    body = {**OPEN, "max_tokens": 1, **body}

    refused = await call(limited.api, "POST", "/v1/chat/completions", body)

    assert (refused.status, refused.error["param"]) == (400, "max_tokens")
    assert told in refused.error["message"]
    assert limited.world.engine.calls == []


@pytest.mark.parametrize("path", ["/v1/embeddings", "/async-infer"])
async def test_an_input_that_is_too_long_is_told_as_that(path: str) -> None:
    limited = LimitedWorld(Limits(max_tokens_per_request=15))
    body = {"model": EMBEDDER, "input": "hello " * 20}
    refused = await call(limited.api, "POST", path, body)
    assert (refused.status, refused.error["param"]) == (400, "input")
    assert refused.error["message"].startswith("input: ")
    assert "15 tokens" in refused.error["message"]
    assert "write" not in refused.error["message"]


async def test_tasks_of_one_batch_are_let_in_one_by_one() -> None:
    limited = LimitedWorld(Limits(requests_per_minute=3))
    tasks = [{"model": "echo", "data": {"text": str(n)}} for n in range(5)]
    answer = await call(limited.api, "POST", "/api/inference/batch", {"requests": tasks})
    assert answer.status == 202
    assert (answer.json["accepted"], answer.json["rejected"]) == (3, 2)
    codes = [each["error"]["code"] for each in answer.json["results"] if "error" in each]
    assert codes == ["rate_limit_exceeded"] * 2
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("limits", "retry_after"),
    [
        (Limits(requests_per_minute=3), "40"),
        (Limits(tokens_per_minute=64), "40"),
        (Limits(monthly_usd=1.0, requests_per_minute=3), "40"),
        (Limits(requests_per_minute=2), None),
        (Limits(concurrent_jobs=2), None),
        (Limits(tokens_per_minute=62), None),
    ],
)
async def test_prompts_of_one_request_are_let_in_together_or_not_at_all(
    limits: Limits, retry_after: str | None, stream: bool
) -> None:
    limited = LimitedWorld(limits)
    assert (await limited.post("/v1/completions")).status == 200
    before, calls = limited.counts(), len(limited.world.engine.calls)

    refused = await limited.post("/v1/completions", prompt=["a", "b", "c"], stream=stream)

    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers.get("retry-after") == retry_after
    assert refused.headers.get("x-should-retry") == (None if retry_after else "false")
    assert (limited.counts(), len(limited.world.engine.calls)) == (before, calls)


@pytest.mark.parametrize("stream", [False, True])
async def test_prompts_of_one_request_are_settled_as_each_was_used(stream: bool) -> None:
    limits = Limits(
        requests_per_minute=9, tokens_per_minute=999, concurrent_jobs=3, monthly_usd=1.0
    )
    limited = LimitedWorld(limits, limits)

    answer = await limited.post("/v1/completions", prompt=["a", "b", "c"], stream=stream)

    assert answer.status == 200
    assert answer.headers["x-ratelimit-remaining-requests"] == "6"
    assert answer.headers["x-ratelimit-remaining-tokens"] == "936"
    [entry] = limited.meter.entries
    assert entry.used is not None
    assert (entry.used.requests, entry.used.tokens) == (3, 6)
    assert 0 < entry.used.nano_usd < entry.reservation.nano_usd
    assert limited.counts().open == limited.counts(TENANT).open == 0


async def test_prompts_whose_answers_were_kept_are_not_counted() -> None:
    limited = LimitedWorld(Limits(requests_per_minute=3))
    headers = {"Synapse-Cache": "max-age=60"}
    for prompts, left in ((["a"], 2), (["a", "b", "a"], 1), (["b", "c", "a"], 0)):
        body = {"model": CHAT, "prompt": prompts, "temperature": 0}
        answer = await call(limited.api, "POST", "/v1/completions", body, headers)
        assert answer.status == 200
        assert answer.headers["x-ratelimit-remaining-requests"] == str(left)
    body["prompt"] = ["a", "b", "c"]
    assert (await call(limited.api, "POST", "/v1/completions", body, headers)).status == 200
    body["prompt"] = ["a", "b", "d"]
    assert (await call(limited.api, "POST", "/v1/completions", body, headers)).status == 429


@pytest.mark.parametrize("stream", [False, True])
async def test_a_kept_answer_is_told_in_no_tier_that_its_caller_may_not_name(stream: bool) -> None:
    limited = LimitedWorld()
    body = {**CHAT_BODY, "temperature": 0, "service_tier": "priority", "stream": stream}
    headers = {"Synapse-Cache": "max-age=60"}
    path = "/v1/chat/completions"
    assert (await call(limited.api, "POST", path, body, headers)).status == 200
    limited.caller = replace(limited.caller, tiers=frozenset({SlaTier.BRONZE}))

    refused = await call(limited.api, "POST", path, body, headers)
    body["service_tier"] = "flex"
    taken = await call(limited.api, "POST", path, body, headers)

    assert (refused.status, refused.error["code"]) == (403, "tier_not_allowed")
    assert (taken.status, taken.headers["synapse-cache"]) == (200, "hit")


async def test_of_prompts_that_are_refused_for_another_reason_none_counts() -> None:
    limited = LimitedWorld(Limits(requests_per_minute=9))
    limited.world.registry._pools = ()
    answer = await limited.post("/v1/completions", prompt=["a", "b", "c"])
    assert answer.status == 503
    assert (limited.counts().requests, limited.counts().open) == (0, 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_prompts_of_which_one_finds_no_seat_are_not_computed_and_none_counts(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = LimitedWorld(Limits(requests_per_minute=9, tokens_per_minute=999))
    take, taken = Seats.take, itertools.count(1)

    async def only_two(seats: Seats, *arguments: Any) -> Seat:
        if next(taken) > 2:
            raise Overloaded("full", retry_after_s=1)
        return await take(seats, *arguments)

    monkeypatch.setattr(Seats, "take", only_two)
    refused = await limited.post("/v1/completions", prompt=["a", "b", "c"], stream=stream)

    assert (refused.status, refused.error["code"]) == (503, "engine_overloaded")
    assert limited.world.engine.calls == []
    counts = limited.counts()
    assert (counts.requests, counts.tokens, counts.open) == (0, 0, 0)
    assert limited.world.usage.sums == {}
    assert limited.world.slots.in_flight(CHAT) == 0
    told = [(each.outcome, each.pool) for [each] in limited.world.telemetry.of("answered")]
    assert told == [("refused", "")] * 3


@pytest.mark.parametrize("stream", [False, True])
async def test_prompts_of_which_one_is_refused_hold_no_seats_that_were_being_taken(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = LimitedWorld(Limits())
    slots, refused = limited.world.slots, asyncio.Event()
    take, taken, enter = Seats.take, itertools.count(1), slots.enter

    async def not_the_first(seats: Seats, *arguments: Any) -> Seat:
        if next(taken) == 1:
            refused.set()
            raise Overloaded("full", retry_after_s=1)
        return await take(seats, *arguments)

    async def write(*arguments: Any) -> Entry | None:
        await refused.wait()
        await asyncio.sleep(0)
        entry: Entry | None = await enter(*arguments)
        return entry

    async def as_a_table(*arguments: Any) -> Entry | None:
        """What is on its way there is written, whoever waits for that."""
        return await asyncio.shield(asyncio.ensure_future(write(*arguments)))

    monkeypatch.setattr(Seats, "take", not_the_first)
    monkeypatch.setattr(slots, "enter", as_a_table)
    answer = await limited.post("/v1/completions", prompt=["a", "b", "c"], stream=stream)
    for _ in range(9):
        await asyncio.sleep(0)

    assert (answer.status, answer.error["code"]) == (503, "engine_overloaded")
    assert slots.in_flight(CHAT) == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_for_which_no_worker_can_be_reached_in_time_does_not_count(
    stream: bool,
) -> None:
    def away(_: InferenceRequest) -> EngineUnavailable:
        return EngineUnavailable("away")

    limited = LimitedWorld(Limits(requests_per_minute=9), engine=ScriptedEngine(away))
    headers = {"x-stainless-read-timeout": "0.01"}
    body = {**CHAT_BODY, "stream": stream}

    answer = await call(limited.api, "POST", "/v1/chat/completions", body, headers)

    assert (answer.status, answer.error["code"]) == (503, "engine_unavailable")
    assert (limited.counts().requests, limited.counts().open) == (0, 0)
    assert [(used.requests, used.errors) for used in limited.world.usage.sums.values()] == [(1, 1)]


@pytest.mark.parametrize("refusal", [InvalidInput("no such form"), ContextLengthExceeded("long")])
async def test_what_the_engine_refuses_counts_as_a_request_of_no_tokens(
    refusal: InvalidInput,
) -> None:
    engine = ScriptedEngine(lambda _: refusal)
    limited = LimitedWorld(Limits(requests_per_minute=5, tokens_per_minute=1000), engine=engine)

    assert (await call(limited.api, "POST", "/v1/chat/completions", CHAT_BODY)).status == 400

    counts = limited.counts()
    assert (counts.requests, counts.tokens, counts.open) == (1, 0, 0)


async def test_a_thousand_at_once_against_a_limit_of_a_hundred() -> None:
    limited = LimitedWorld(Limits(requests_per_minute=100))
    api = limited.api
    answers = await asyncio.gather(
        *(call(api, "POST", "/async-infer", WAYS_IN["/async-infer"]) for _ in range(1000))
    )
    statuses = [answer.status for answer in answers]
    assert (statuses.count(202), statuses.count(429)) == (100, 900)


@pytest.mark.parametrize(
    ("path", "length"),
    [("/v1/chat/completions", "max_tokens"), ("/v1/responses", "max_output_tokens")],
)
async def test_what_an_answer_did_not_use_comes_back(path: str, length: str) -> None:
    limited = LimitedWorld(Limits(tokens_per_minute=100))
    answer = await limited.post(path, **{length: 90})
    assert answer.headers["x-ratelimit-remaining-tokens"] == "7"
    used = answer.json["usage"]["total_tokens"]
    assert limited.counts().tokens == used == 4
    assert limited.counts().open == 0


@pytest.mark.parametrize(
    ("path", "end"),
    [("/v1/chat/completions", "data: [DONE]"), ("/v1/responses", "event: response.completed")],
)
async def test_a_stream_tells_what_is_left_and_is_settled_at_its_end(path: str, end: str) -> None:
    limited = LimitedWorld(Limits(tokens_per_minute=100))
    answer = await limited.post(path, stream=True)
    assert answer.headers["x-ratelimit-remaining-tokens"] == "77"
    assert end in answer.text
    assert (limited.counts().tokens, limited.counts().open) == (4, 0)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/embeddings"])
async def test_to_hang_up_before_the_answer_saves_no_tokens(path: str) -> None:
    """Nobody knows how far the worker had come, and it goes round no limit to let it work."""
    limited = LimitedWorld(Limits(tokens_per_minute=100))
    begun = asyncio.Event()

    async def for_ever(*arguments: object) -> AsyncGenerator[Any, None]:
        begun.set()
        await asyncio.Event().wait()
        yield

    limited.world.engine.infer = for_ever
    request = asyncio.create_task(limited.post(path))
    await begun.wait()
    reserved = limited.counts().tokens
    request.cancel()
    await asyncio.wait([request])
    assert limited.counts().tokens == reserved > 0
    assert limited.counts().open == 0


async def test_a_request_that_no_worker_takes_has_used_no_tokens() -> None:
    limited = LimitedWorld(Limits(tokens_per_minute=100, concurrent_jobs=1))
    limited.world.registry._pools = ()
    answer = await limited.post("/v1/chat/completions")
    assert answer.status == 503
    assert limited.counts() == Counts(limited.counts().minute, month=limited.counts().month)


async def test_a_prompt_that_is_longer_than_it_was_thought_counts_in_full() -> None:
    def wordy(request: InferenceRequest) -> Completion:
        return Completion("well", "stop", Usage(500, 1))

    limited = LimitedWorld(Limits(tokens_per_minute=100), engine=ScriptedEngine(wordy))
    assert (await limited.post("/v1/chat/completions")).status == 200
    assert limited.counts().tokens == 501
    assert (await limited.post("/v1/chat/completions")).status == 429


async def test_jobs_count_as_under_way_until_they_have_ended() -> None:
    limited = LimitedWorld(Limits(concurrent_jobs=1))
    accepted = await limited.post("/async-infer")
    refused = await limited.post("/v1/chat/completions")
    assert (refused.status, refused.headers["retry-after"]) == (429, "2")
    await limited.world.work()
    result = await call(limited.api, "GET", f"/results/{accepted.json['jobId']}")
    assert result.json["status"] == JobState.COMPLETED
    assert (await limited.post("/v1/chat/completions")).status == 200


async def test_a_job_that_is_cancelled_gives_back_what_it_reserved() -> None:
    limited = LimitedWorld(Limits(concurrent_jobs=1, tokens_per_minute=100))
    accepted = await limited.post("/async-infer")
    await call(limited.api, "DELETE", f"/results/{accepted.json['jobId']}")
    counts = limited.counts()
    assert (counts.requests, counts.tokens, counts.open) == (1, 0, 0)


async def test_the_same_request_sent_again_counts_once_also_at_the_limit() -> None:
    limited = LimitedWorld(Limits(requests_per_minute=1))
    body, headers = WAYS_IN["/async-infer"], {"Idempotency-Key": "k"}
    answers = [await call(limited.api, "POST", "/async-infer", body, headers) for _ in range(3)]
    assert [answer.status for answer in answers] == [202] * 3
    assert len({answer.json["jobId"] for answer in answers}) == 1
    assert limited.counts().requests == 1


async def test_the_same_request_sent_at_once_counts_once() -> None:
    limited = LimitedWorld(Limits(requests_per_minute=9))
    api, body = limited.api, WAYS_IN["/async-infer"]
    await asyncio.gather(
        *(call(api, "POST", "/async-infer", body, {"Idempotency-Key": "k"}) for _ in range(5))
    )
    assert (limited.counts().requests, limited.counts().open) == (1, 1)


async def test_a_conflict_of_keys_counts_for_nothing() -> None:
    limited = LimitedWorld(Limits(requests_per_minute=9))
    headers = {"Idempotency-Key": "k"}
    await call(limited.api, "POST", "/async-infer", WAYS_IN["/async-infer"], headers)
    other = {**WAYS_IN["/async-infer"], "prompt": "another"}
    conflict = await call(limited.api, "POST", "/async-infer", other, headers)
    assert conflict.status == 422
    assert limited.counts().requests == 1


async def test_the_price_of_what_ran_is_what_counts_in_the_month() -> None:
    limited = LimitedWorld(Limits(monthly_usd=1.0))
    answer = await limited.post("/v1/chat/completions")
    cost_usd = float(answer.headers["x-synapse-cost-usd"])
    assert limited.counts().nano_usd == pytest.approx(cost_usd * NANO, abs=1)


@pytest.fixture
async def sdk() -> Any:
    limited = LimitedWorld(Limits(requests_per_minute=1), Limits(monthly_usd=1.0))
    transport = httpx2.ASGITransport(AsgiApp(limited.api))
    client = openai.AsyncOpenAI(
        base_url="http://synapse/v1",
        api_key="sk",
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=transport),
    )
    yield client, limited
    await client.close()


async def test_the_openai_sdk_raises_its_rate_limit_error(sdk: Any) -> None:
    client, _ = sdk
    raw = await client.chat.completions.with_raw_response.create(**CHAT_BODY)
    assert raw.headers["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(**CHAT_BODY)
    assert caught.value.code == "rate_limit_exceeded"
    assert int(caught.value.response.headers["retry-after"]) <= 60


async def test_the_openai_sdk_does_not_try_again_when_the_budget_is_used_up(sdk: Any) -> None:
    client, limited = sdk
    limited.caller = Principal("default", "key1", tenant_limits=Limits(monthly_usd=0.0))
    with pytest.raises(openai.RateLimitError) as caught:
        await client.with_options(max_retries=5).chat.completions.create(**CHAT_BODY)
    assert (caught.value.type, caught.value.code) == ("insufficient_quota", "insufficient_quota")
    assert limited.calls == 1
