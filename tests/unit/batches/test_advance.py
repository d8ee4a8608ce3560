"""Driving a batch from its file to its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from synapse.application.files import Files
from synapse.application.intake import message_of
from synapse.application.payloads import encode_result, stow
from synapse.application.revocations import Revocations
from synapse.domain.access import Principal
from synapse.domain.api_key import ApiKey, digest
from synapse.domain.errors import SynapseError, Unavailable
from synapse.domain.file import FileId
from synapse.domain.file_batch import FileBatchStatus
from synapse.domain.inference import Completion
from synapse.domain.job import Job, JobId, JobState, Outcome, Payload, Priority, Usage
from synapse.ports import Created, FileQuery
from synapse.ports.file_batches import LineRequest
from tests.factories import NOW, a_job, a_lease, a_model, a_pool, an_id
from tests.fake_file_batches import PlainCodec
from tests.fake_files import MemoryFileStore
from tests.fake_keys import MemoryKeyStore
from tests.fakes import MeetingBlobStore, MemoryRegistry
from tests.faults import failing_after, failing_before
from tests.unit.batches.batch_world import WINDOW, BatchWorld, a_line

BROKEN: Mapping[str, tuple[str, str]] = {
    "not JSON": ("{", "invalid_json_line"),
    "not an object": ("[1]", "invalid_json_line"),
    "not a number of JSON": ('{"custom_id": NaN}', "invalid_json_line"),
    "too deep": ("[" * 100_000, "invalid_json_line"),
    "no custom_id": ('{"method": "POST"}', "missing_required_parameter"),
    "a custom_id that is no text": (a_line(1, custom_id=7), "invalid_custom_id"),
    "another method": (a_line(2, method="GET"), "invalid_method"),
    "no url": (json.dumps({"custom_id": "u"}), "missing_required_parameter"),
    "a body that is no object": (a_line(3, body="x"), "invalid_body"),
}


@pytest.fixture
def world() -> BatchWorld:
    return BatchWorld()


async def test_a_thousand_lines_with_ten_broken_give_990_answers_and_10_errors(
    world: BatchWorld,
) -> None:
    lines = [a_line(number) for number in range(1000)]
    broken = [*(text for text, _ in BROKEN.values()), a_line(900, body={"model": "echo"})]
    for index, text in enumerate(broken):
        lines[index * 100] = text

    await world.created(lines)
    batch = await world.run()

    assert batch.status is FileBatchStatus.COMPLETED
    assert (batch.counts.total, batch.counts.completed, batch.counts.failed) == (1000, 990, 10)
    output = await world.output()
    assert len(output) == 990
    assert output["c1"]["response"]["body"] == {"prompt": "p1", "text": "P1"}
    assert output["c1"]["response"]["status_code"] == 200
    assert output["c1"]["error"] is None
    assert len(await world.errors()) == 10
    assert set(world.completions.values()) == {1}
    assert (batch.usage.prompt_tokens, batch.usage.completion_tokens) == (1980, 2970)
    assert batch.usage.cached_tokens == 990
    assert world.telemetry.of("file_batch_ended") == [(batch,)]


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_line_is_an_error_with_its_number(world: BatchWorld, kind: str) -> None:
    text, code = BROKEN[kind]

    await world.created([a_line(10), "", text, a_line(11)])
    await world.run()

    [error] = await world.errors()
    assert error["response"] is None
    assert (error["error"]["code"], error["error"]["line"]) == (code, 3)
    assert set(await world.output()) == {"c10", "c11"}


async def test_what_the_route_or_the_model_refuses_is_an_error_with_status_and_body(
    world: BatchWorld,
) -> None:
    await world.created(
        [
            a_line(1, body={"model": "echo"}),
            a_line(2, body={"model": "nobody", "prompt": "x"}),
            a_line(3, body={"model": "echo", "prompt": "fail"}),
            a_line(4),
        ]
    )
    batch = await world.run()

    errors = {line["custom_id"]: line["response"] for line in await world.errors()}
    codes = {name: response["body"]["error"]["code"] for name, response in errors.items()}
    assert codes == {"c1": "invalid_value", "c2": "model_not_found", "c3": "invalid_input"}
    assert {response["status_code"] for response in errors.values()} == {400}
    assert (batch.counts.completed, batch.counts.failed) == (1, 3)


async def test_a_line_for_a_model_that_no_pool_serves_is_an_error(world: BatchWorld) -> None:
    pool = a_pool(models=frozenset({"echo"}))
    world.registry = MemoryRegistry([a_model("echo"), a_model("other")], [pool])
    await world.created([a_line(1), a_line(2, body={"model": "other", "prompt": "x"})])
    await world.run()

    [error] = await world.errors()
    assert error["custom_id"] == "c2"
    assert error["response"]["body"]["error"]["code"] == "model_not_found"
    assert set(await world.output()) == {"c1"}


@pytest.mark.parametrize(
    ("named", "told"),
    [
        (["gpt-9", "echo"], "echo"),
        (["other", "echo"], "echo"),
        (["x" * 500_000, "echo"], "echo"),
        ([f"gpt-{n}" for n in range(30)], None),
        (["echo", "gpt-9"], "echo"),
    ],
)
async def test_the_model_that_is_told_is_the_first_that_is_run(
    world: BatchWorld, named: Sequence[str], told: str | None
) -> None:
    pool = a_pool(models=frozenset({"echo"}))
    world.registry = MemoryRegistry([a_model("echo"), a_model("other")], [pool])
    bodies = [{"model": name, "prompt": "x"} for name in named]
    await world.created([a_line(n, body=body) for n, body in enumerate(bodies)])

    await world.step()

    assert world.batch.model == told


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        (b"", "empty_file", None),
        (b"\n \r\n\n", "empty_file", None),
        ("\n".join([a_line(1), a_line(2), a_line(1)]), "duplicate_custom_id", 3),
        ("\n".join([a_line(1), a_line(2, url="/v1/embeddings")]), "mismatched_url", 2),
        ("nonsense\n{}", "invalid_json_line", 1),
        (b"\xff\xfe", "invalid_json_line", 1),
    ],
)
async def test_a_file_that_cannot_be_meant_so_fails_the_batch_and_runs_nothing(
    world: BatchWorld, text: str | bytes, code: str, line: int | None
) -> None:
    await world.created(text)
    batch = await world.run()

    assert batch.status is FileBatchStatus.FAILED
    assert (batch.faults[0].code, batch.faults[0].line) == (code, line)
    assert not world.jobs.jobs


async def test_a_byte_order_mark_carriage_returns_and_no_last_newline_do_no_harm(
    world: BatchWorld,
) -> None:
    await world.created("\ufeff" + a_line(1) + "\r\n" + a_line(2))
    await world.run()

    assert set(await world.output()) == {"c1", "c2"}


async def test_lines_are_low_priority_jobs_that_expire_with_the_batch(world: BatchWorld) -> None:
    batch = await world.created([a_line(1)], window="2h")
    await world.step()
    await world.step()

    [job] = world.jobs.jobs.values()
    assert (job.priority, job.deadline_at) == (Priority.LOW, batch.expires_at)
    assert job.id == batch.job_id(1)
    assert job.metadata == {"batch_id": batch.id, "line": "1"}


async def test_no_more_lines_are_open_than_the_window_lets(world: BatchWorld) -> None:
    await world.created(a_line(number) for number in range(100))
    most = 0
    while not (await world.step()).is_done:
        still = [job for job in world.jobs.jobs.values() if not job.state.is_final]
        most = max(most, len(still))
        await world.work(limit=7)

    assert most == WINDOW
    assert len(await world.output()) == 100


async def test_one_slow_line_holds_up_no_other(world: BatchWorld) -> None:
    await world.created(a_line(number) for number in range(100))
    await world.step()
    await world.step()
    slow = world.queue.messages.pop(0)
    for _ in range(30):
        await world.work()
        await world.step()

    assert world.batch.counts.completed == 99
    assert [line.number for line in world.batch.open_lines] == [1]
    world.queue.messages.append(slow)
    assert (await world.run()).counts.completed == 100


async def test_counts_can_be_watched_while_the_batch_runs(world: BatchWorld) -> None:
    await world.created(a_line(number) for number in range(50))
    seen = []
    while not (await world.step()).is_done:
        seen.append((world.batch.counts.completed, world.batch.status.value))
        await world.work()

    assert seen == [
        (0, "in_progress"),
        (0, "in_progress"),
        (20, "in_progress"),
        (40, "in_progress"),
        (50, "finalizing"),
    ]


async def test_an_expired_batch_keeps_its_answers_and_says_what_was_not_done(
    world: BatchWorld,
) -> None:
    lines = [a_line(number) for number in range(50)]
    lines[45] = "{"
    batch = await world.created(lines, window="1m")
    await world.step()
    await world.step()
    await world.work(limit=5)
    world.clock.now = batch.expires_at

    batch = await world.run()

    assert batch.status is FileBatchStatus.EXPIRED
    assert (batch.counts.completed, batch.counts.failed) == (5, 45)
    assert set(await world.output()) == {f"c{number}" for number in range(5)}
    codes = [line["error"]["code"] for line in await world.errors()]
    assert (codes.count("batch_expired"), codes.count("invalid_json_line")) == (44, 1)
    assert {job.state for job in world.jobs.jobs.values()} == {
        JobState.COMPLETED,
        JobState.EXPIRED,
    }


async def test_a_cancelled_batch_stops_its_jobs_and_keeps_its_answers(world: BatchWorld) -> None:
    await world.created(a_line(number) for number in range(50))
    await world.step()
    await world.step()
    await world.work(limit=5)

    cancelling = await world.use_cases.cancel("default", world.batch_id)
    assert cancelling.status is FileBatchStatus.CANCELLING
    batch = await world.run()

    assert batch.status is FileBatchStatus.CANCELLED
    assert (batch.counts.completed, batch.counts.failed) == (5, 45)
    assert {line["error"]["code"] for line in await world.errors()} == {"batch_cancelled"}
    assert len(world.aborted) == WINDOW - 5
    assert all(job.state.is_final for job in world.jobs.jobs.values())
    assert len(world.jobs.jobs) == WINDOW


async def test_cancelling_finds_the_jobs_of_a_step_that_was_not_recorded(
    world: BatchWorld,
) -> None:
    await world.created(a_line(number) for number in range(50))
    await world.step()
    with pytest.raises(Unavailable):
        await world.step(batches=failing_before(world.batches, save=[Unavailable("gone")]))
    await world.work(limit=3)

    await world.use_cases.cancel("default", world.batch_id)
    batch = await world.run()

    assert batch.counts.completed == 3
    assert all(job.state.is_final for job in world.jobs.jobs.values())


async def test_a_batch_cancelled_before_its_file_was_read_has_no_files(world: BatchWorld) -> None:
    await world.created([a_line(1)])
    await world.use_cases.cancel("default", world.batch_id)

    batch = await world.run()

    assert batch.status is FileBatchStatus.CANCELLED
    assert (batch.output_file_id, batch.error_file_id) == (None, None)


async def test_a_file_deleted_under_way_fails_the_batch_with_what_was_answered(
    world: BatchWorld,
) -> None:
    batch = await world.created(a_line(number) for number in range(50))
    for _ in range(2):
        await world.step()
    await world.work()
    await world.step()
    await world.files.delete(FileId(batch.input_file_id))

    batch = await world.run()

    assert (batch.status, batch.faults[0].code) == (FileBatchStatus.FAILED, "input_file_gone")
    assert len(await world.output()) == 20
    assert all(job.state.is_final for job in world.jobs.jobs.values())


async def test_a_full_queue_holds_up_reading_but_loses_no_line(world: BatchWorld) -> None:
    await world.created(a_line(number) for number in range(30))
    await world.step()
    queue = failing_before(world.queue, send=[Unavailable("full", code="queue_full")])
    await world.step(queue=queue)
    assert len(world.batch.open_lines) == WINDOW
    assert not world.queue.messages

    # The sweeper finds them by their records.
    world.clock.advance(200)
    for job in await world.jobs.due(world.clock(), 100):
        again = await world.jobs.requeue(job, world.clock(), lost=False)
        assert again is not None
        await world.queue.send([message_of(again)])

    assert (await world.run()).counts.completed == 30


async def test_a_line_that_we_stumble_over_fails_alone(world: BatchWorld) -> None:
    class Stumbling(PlainCodec):
        async def parse(
            self, endpoint: str, body: Mapping[str, Any], caller: Principal
        ) -> LineRequest:
            if body["prompt"] == "p1":
                raise TypeError("oops")
            return await super().parse(endpoint, body, caller)

        async def render(self, endpoint: str, body: Mapping[str, Any], *rest: Any) -> Any:
            if body["prompt"] == "p2":
                raise KeyError("oops")
            return await super().render(endpoint, body, *rest)

    world.codec = Stumbling()
    await world.created(a_line(number) for number in range(5))
    batch = await world.run()

    assert (batch.counts.completed, batch.counts.failed) == (3, 2)
    errors = await world.errors()
    assert {line["custom_id"] for line in errors} == {"c1", "c2"}
    assert {line["error"]["code"] for line in errors} == {"internal_error"}


async def test_an_answer_that_is_gone_is_an_error(world: BatchWorld) -> None:
    await world.created([a_line(1), a_line(2)])
    await world.step()
    await world.step()
    await world.work()
    blobs = failing_before(world.blobs, get=[KeyError("gone")])
    # Only what is too large for a record is in a blob.
    job_id = world.batch.job_id(1)
    world.jobs._jobs[job_id] = replace(world.jobs._jobs[job_id], result=Payload(blob_key="b"))
    await world.step(blobs=blobs)
    await world.run()

    [error] = await world.errors()
    assert (error["custom_id"], error["error"]["code"]) == ("c1", "result_lost")


async def test_a_codec_that_needs_a_service_that_is_away_is_asked_again(world: BatchWorld) -> None:
    class Away(PlainCodec):
        calls = 0

        async def parse(
            self, endpoint: str, body: Mapping[str, Any], caller: Principal
        ) -> LineRequest:
            self.calls += 1
            if self.calls == 3:
                raise Unavailable("the registry is away")
            return await super().parse(endpoint, body, caller)

    world.codec = Away()
    await world.created(a_line(number) for number in range(5))
    await world.step()
    with pytest.raises(SynapseError):
        await world.step()

    assert (await world.run()).counts.completed == 5


async def test_making_the_files_again_after_a_crash_makes_no_second_ones(
    world: BatchWorld,
) -> None:
    await world.created([a_line(1), "{"])
    while world.batch.status is not FileBatchStatus.FINALIZING:
        await world.step()
        await world.work()
    with pytest.raises(Unavailable):
        await world.step(batches=failing_before(world.batches, save=[Unavailable("crash")]))
    await world.run()

    made = await world.files.page(FileQuery(limit=100))
    outputs = [file for file in made.files if file.purpose == "batch_output"]
    assert {file.id for file in outputs} == {
        world.batch.output_file_id,
        world.batch.error_file_id,
    }
    assert not [key for key in world.blobs.blobs if key.startswith("batches/")]


async def test_a_save_whose_answer_was_lost_counts_nothing_twice(world: BatchWorld) -> None:
    await world.created(a_line(number) for number in range(30))
    for _ in range(3):
        with pytest.raises(Unavailable):
            await world.step(batches=failing_after(world.batches, save=[Unavailable("lost")]))
        await world.work()

    batch = await world.run()

    assert (batch.counts.completed, batch.counts.failed) == (30, 0)
    assert len(await world.output()) == 30
    assert set(world.completions.values()) == {1}


async def test_the_record_says_now_and_then_that_somebody_is_there(world: BatchWorld) -> None:
    await world.created([a_line(1)])
    await world.step()
    await world.step()
    before = world.batch

    await world.step()
    assert world.batch == before
    world.clock.advance(61)
    await world.step()

    assert world.batch.advanced_at == world.clock()


async def test_an_ended_or_unknown_batch_needs_no_driver(world: BatchWorld) -> None:
    await world.created("")
    await world.run()
    assert (await world.step()).is_done

    progress = await world.advancer().advance("other tenant", world.batch_id)

    assert progress.is_done


@pytest.mark.parametrize("begun", [False, True], ids=["not looked through", "under way"])
async def test_a_batch_whose_key_is_revoked_with_its_jobs_is_cancelled_and_keeps_what_it_has(
    world: BatchWorld, begun: bool
) -> None:
    key = ApiKey("key000000001", "default", "a test", digest(""), NOW, revoked_at=NOW, stops_at=NOW)
    revocations = Revocations(MemoryKeyStore(key), world.clock)
    lines = [a_line(number) for number in range(3 * WINDOW)]
    await world.created(lines, caller=Principal("default", key.id))
    if begun:
        await world.step()
        await world.step()
        await world.work(limit=2)

    while not (await world.step(revocations=revocations)).is_done:
        pass

    assert world.batch.status is FileBatchStatus.CANCELLED
    assert world.batch.counts.completed == (2 if begun else 0)
    assert len(await world.output()) == (2 if begun else 0)
    assert not [job for job in world.jobs.jobs.values() if not job.state.is_final]


async def test_inputs_of_lines_are_stored_side_by_side_and_so_are_answers_fetched() -> None:
    world = BatchWorld()
    world.blobs = MeetingBlobStore(puts=6)
    world.files = Files(MemoryFileStore(world.clock), world.blobs, world.clock, an_id)
    await world.created(a_line(number) for number in range(6))
    await world.step()
    await world.step()
    jobs = [job for job in world.jobs.jobs.values() if job.payload.blob_key]
    assert len(jobs) == 6

    world.blobs.puts_meet(1)
    for job in await world.jobs.claim([job.id for job in jobs], a_lease("w"), NOW):
        result = encode_result(Completion("yes", "stop", Usage(2, 3)))
        payload = await stow(world.blobs, f"jobs/{job.id}/result-w", result)
        outcome = Outcome(job.id, JobState.COMPLETED, payload, Usage(2, 3))
        await world.jobs.settle(outcome, "w", NOW)
    world.blobs.gets_meet(6)
    while not (await world.step()).is_done:
        pass

    assert len(await world.output()) == 6


async def test_a_line_that_cannot_be_recorded_leaves_no_other_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = BatchWorld()
    create, recorded = world.jobs.create, []

    async def slow(job: Job, *more: Any) -> Created:
        if job.id.endswith("1"):
            raise Unavailable("the disk is full")
        for _ in range(10):
            await asyncio.sleep(0)
        recorded.append(job.id)
        return await create(job, *more)

    monkeypatch.setattr(world.jobs, "create", slow)
    with pytest.raises(Unavailable):
        await world.tools().record([a_job(id=JobId("line-1")), a_job(id=JobId("line-2"))])

    assert recorded == ["line-2"]
