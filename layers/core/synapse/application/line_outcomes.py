"""What became of a batch's lines, as its output and error files tell it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from synapse.application.batch_lines import BadLine, Envelope, RawLine
from synapse.application.batch_parts import Parts
from synapse.application.line_tools import CANCELLED, EXPIRED, LineTools
from synapse.application.payloads import decode_result
from synapse.domain.errors import SynapseError
from synapse.domain.file_batch import NO_USAGE, FileBatch, added
from synapse.domain.job import Failure, Job, JobState, Usage

logger = logging.getLogger(__name__)

FETCHED_TOGETHER = 8
"""Answers that are fetched side by side: each may be a blob of megabytes."""

Ended = tuple[RawLine, Envelope, Job | None]
"""A line and its job as that ended; none if it never became one."""


@dataclass(slots=True)
class LineOutcomes:
    """Writes what became of lines to the parts of a step, and adds up what they used."""

    batch: FileBatch
    tools: LineTools
    parts: Parts = field(init=False)
    usage: Usage = NO_USAGE

    def __post_init__(self) -> None:
        self.parts = Parts(self.batch, self.tools.blobs, self.tools.new_part)

    async def write(self, lines: Sequence[Ended]) -> None:
        """Write lines whose jobs have ended, and such as got none."""
        for start in range(0, len(lines), FETCHED_TOGETHER):
            some = lines[start : start + FETCHED_TOGETHER]
            answers = await asyncio.gather(*(self.tools.answer(job) for _, _, job in some))
            for (line, envelope, job), answer in zip(some, answers, strict=True):
                await self._write_one(line, envelope, job, answer)

    async def bad(self, line: RawLine, error: BadLine) -> None:
        """Write a line that cannot be read as a request."""
        await self.parts.not_run(line.place.number, error.custom_id, error.code, error.message)

    async def refused(self, number: int, envelope: Envelope, error: SynapseError | Failure) -> None:
        """Write a line with what its caller would have been told on the line."""
        refusal = await self.tools.codec.refusal(self.batch.endpoint, envelope.body, error)
        await self.parts.refused(number, envelope.custom_id, refusal)

    async def not_understood(self, number: int, envelope: Envelope) -> None:
        """Write a line that we stumbled over."""
        reason = "this request could not be processed"
        await self.parts.not_run(number, envelope.custom_id, "internal_error", reason)

    async def _write_one(
        self, line: RawLine, envelope: Envelope, job: Job | None, answer: str | None
    ) -> None:
        number, custom_id = line.place.number, envelope.custom_id
        if job is not None and job.state is JobState.COMPLETED:
            await self._answered(number, envelope, job, answer)
        elif job is not None and job.state is JobState.FAILED:
            failure = job.failure or Failure("internal_error", "the request failed")
            await self.refused(number, envelope, failure)
        else:
            expired = self.batch.has_expired_at(self.tools.clock())
            expired = job.state is JobState.EXPIRED if job else expired
            failure = EXPIRED if expired else CANCELLED
            await self.parts.not_run(number, custom_id, failure.code, failure.message)
        await asyncio.sleep(0)

    async def _answered(
        self, number: int, envelope: Envelope, job: Job, answer: str | None
    ) -> None:
        batch, tools = self.batch, self.tools
        if answer is None:
            reason = "the answer to this request is gone"
            await self.parts.not_run(number, envelope.custom_id, "result_lost", reason)
            return
        result = decode_result(answer, job.usage or NO_USAGE)
        try:
            body = await tools.codec.render(
                batch.endpoint, envelope.body, job.id, job.finished_at or job.created_at, result
            )
        except Exception:
            logger.exception("answer not rendered", extra={"batch": batch.id, "line": number})
            reason = "the answer to this request could not be written"
            await self.parts.not_run(number, envelope.custom_id, "internal_error", reason)
            return
        await self.parts.answered(number, envelope.custom_id, body)
        self.usage = added(self.usage, result.usage)
