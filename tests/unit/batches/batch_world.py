"""File batches over working fakes, with a worker that runs jobs when a test says so."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from synapse.application.advance import Advancer, Progress
from synapse.application.file_batches import CreateFileBatch, FileBatches
from synapse.application.files import Files
from synapse.application.line_tools import LineTools
from synapse.application.payloads import encode_result
from synapse.domain.file import FileId, NewFile, Purpose
from synapse.domain.file_batch import FileBatch, FileBatchId, Pace
from synapse.domain.inference import Completion
from synapse.domain.job import Failure, Job, JobId, JobState, Outcome, Payload, Usage
from tests.factories import a_lease, a_model, a_pool, an_id
from tests.fake_file_batches import MemoryFileBatchStore, PlainCodec, RecordingFileBatchStarter
from tests.fake_files import MemoryFileStore
from tests.fakes import (
    FakeClock,
    MemoryBlobStore,
    MemoryJobQueue,
    MemoryJobStore,
    MemoryRegistry,
    RecordingTelemetry,
)

URL = "/v1/completions"
WINDOW = 20


def a_line(number: int, **changes: Any) -> str:
    """A good line, which asks for its own number."""
    line = {
        "custom_id": f"c{number}",
        "method": "POST",
        "url": URL,
        "body": {"model": "echo", "prompt": f"p{number}"},
    }
    return json.dumps({**line, **changes})


class BatchWorld:
    """Everything a batch needs. The adapters may be wrapped by a test before `advancer()`."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.jobs = MemoryJobStore(self.clock)
        self.queue: Any = MemoryJobQueue()
        self.blobs: Any = MemoryBlobStore()
        self.batches = MemoryFileBatchStore()
        self.codec: Any = PlainCodec()
        self.starter = RecordingFileBatchStarter()
        self.telemetry = RecordingTelemetry()
        self.registry = MemoryRegistry([a_model("echo")], [a_pool()])
        self.files = Files(MemoryFileStore(self.clock), self.blobs, self.clock, an_id)
        self.aborted: list[JobId] = []
        self.completions: Counter[str] = Counter()
        self.batch_id = FileBatchId("")

    def tools(self, **wrapped: Any) -> LineTools:
        parts: dict[str, Any] = {
            "store": self.jobs,
            "queue": self.queue,
            "blobs": self.blobs,
            "file_blobs": self.blobs,
            "registry": self.registry,
            "codec": self.codec,
            "telemetry": self.telemetry,
            "clock": self.clock,
            "new_id": an_id,
            "abort": self.aborted.append,
        }
        return LineTools(**{**parts, **wrapped})

    def advancer(self, **wrapped: Any) -> Advancer:
        batches = wrapped.pop("batches", self.batches)
        files = Files(self.files._store, wrapped.get("blobs", self.blobs), self.clock, an_id)
        revocations = wrapped.pop("revocations", None)
        return Advancer(batches, files, self.tools(**wrapped), Pace(0.5, 60), revocations)

    @property
    def use_cases(self) -> FileBatches:
        return FileBatches(
            self.batches, self.files, self.starter, self.codec.endpoints, self.clock, an_id
        )

    async def created(self, text: str | bytes | Iterable[str], **changes: Any) -> FileBatch:
        """A new batch of a file with that text, or with those lines."""
        if not isinstance(text, str | bytes):
            text = "\n".join(text)
        data = text.encode() if isinstance(text, str) else text
        new = NewFile("in.jsonl", Purpose.BATCH)
        file = await self.files.write(FileId(an_id("file-")), new, _chunks(data))
        command = CreateFileBatch(URL, file.id, changes.pop("window", "24h"), **changes)
        batch = await self.use_cases.create(command)
        self.batch_id = batch.id
        return batch

    @property
    def batch(self) -> FileBatch:
        return self.batches.batches[self.batch_id]

    async def step(self, **wrapped: Any) -> Progress:
        return await self.advancer(**wrapped).advance("default", self.batch_id, WINDOW)

    async def work(self, limit: int | None = None) -> None:
        """Run jobs that wait, as a worker would: each is answered with its prompt."""
        for message in self.queue.take(limit):
            for job in await self.jobs.claim([message.job_id], a_lease("w"), self.clock()):
                outcome = self._outcome(job)
                if await self.jobs.settle(outcome, "w", self.clock()) is not None:
                    self.completions[job.id] += 1

    def _outcome(self, job: Job) -> Outcome:
        prompt = json.loads(job.payload.inline or "{}")["prompt"]
        if "fail" in prompt:
            failure = Failure("invalid_input", "the model refuses this")
            return Outcome(job.id, JobState.FAILED, failure=failure)
        usage = Usage(2, 3, 1)
        result = encode_result(Completion(prompt.upper(), "stop", usage))
        return Outcome(job.id, JobState.COMPLETED, Payload(inline=result), usage)

    async def run(self, max_steps: int = 500) -> FileBatch:
        """Step and work until the batch has ended."""
        for _ in range(max_steps):
            if (await self.step()).is_done:
                return self.batch
            await self.work()
        raise AssertionError(f"not done after {max_steps} steps: {self.batch}")

    async def output(self) -> dict[str, Mapping[str, Any]]:
        """The output file by custom_id, of which none comes twice."""
        lines = await self._lines(self.batch.output_file_id)
        assert len({line["custom_id"] for line in lines}) == len(lines)
        return {line["custom_id"]: line for line in lines}

    async def errors(self) -> list[dict[str, Any]]:
        """The lines of the error file."""
        return await self._lines(self.batch.error_file_id)

    async def _lines(self, file_id: str | None) -> list[dict[str, Any]]:
        if file_id is None:
            return []
        file = await self.files.get(FileId(file_id))
        assert file.purpose is Purpose.BATCH_OUTPUT
        data = (await self.blobs.get(file.blob_key)).decode()
        assert data.endswith("\n")
        return [json.loads(line) for line in data.splitlines()]


async def _chunks(data: bytes) -> Any:
    """In pieces that do not care for lines."""
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]
