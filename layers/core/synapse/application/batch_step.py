"""One step of a file batch: take in what has ended, submit what there is room for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from synapse.application.batch_lines import BadLine, Envelope, RawLine, envelope_of, read_at
from synapse.application.batch_lines import read_lines as lines_of
from synapse.application.checks import MAX_INPUT_BYTES, check_input, runnable_model
from synapse.application.intake import SubmitJob, new_job
from synapse.application.line_outcomes import FETCHED_TOGETHER, Ended, LineOutcomes
from synapse.application.line_tools import LineTools, NoRoom
from synapse.application.metering import cut_to_limits
from synapse.domain.errors import SynapseError, Unavailable
from synapse.domain.file_batch import LINE_TIER, Cursor, FileBatch, OpenLine, Step
from synapse.domain.job import Job, Priority

logger = logging.getLogger(__name__)

SLICE_LINES = 64
SLICE_BYTES = 4 * 1024 * 1024
"""How much is worked on at a time, whichever comes first (one line more of bytes)."""


class InputGone(Exception):
    """The batch's file is no longer there."""


class Overtaken(Exception):
    """Somebody else has moved the batch on: nothing of the step will count."""


@dataclass(slots=True)
class BatchStep:
    """A step under way. With `window` lines open, no more are submitted.

    Once the batch is over (cancelled, or its window has passed), the step ends what is open, and
    goes through the rest of the file to say of each line what became of it. `room_in_s` is when
    its account's limits may leave room for the next line, None where they do. `stands` tells
    whether the record is still at the revision that the step began with.
    """

    batch: FileBatch
    window: int
    tools: LineTools
    stands: Callable[[], Awaitable[bool]]
    outcomes: LineOutcomes = field(init=False)
    is_over: bool = field(init=False)
    read_to: Cursor = field(init=False)
    opened: list[OpenLine] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    queue_is_full: bool = False
    room_in_s: float | None = None

    def __post_init__(self) -> None:
        tools = self.tools
        self.outcomes = LineOutcomes(self.batch, tools)
        self.is_over = self.batch.is_over_at(tools.clock())
        self.read_to = self.batch.read_to

    async def run(self) -> Step:
        """Do the step; nothing of it counts until the record says so.

        Raises:
            InputGone: the file cannot be read on.
            Overtaken: the record was written by others meanwhile.
            Unavailable: records, blobs or queue cannot be reached; do it again later.
        """
        await self._collect()
        await self._read_on()
        parts = self.outcomes.parts
        await parts.flush()
        return Step(
            read_to=self.read_to,
            opened=tuple(self.opened),
            ended=frozenset(self.ended),
            completed=parts.completed,
            failed=parts.failed,
            usage=self.outcomes.usage,
            output_parts=parts.outputs,
            error_parts=parts.errors,
        )

    async def _collect(self) -> None:
        """Write the lines whose jobs have ended."""
        for lines in _slices(self.batch.open_lines):
            jobs = await asyncio.gather(*(self._job(line.number) for line in lines))
            ended = {
                line: job
                for line, job in zip(lines, jobs, strict=True)
                if job is None or job.state.is_final
            }
            try:
                async with aclosing(read_at(self._open_file, sorted(ended))) as raws:
                    found: list[Ended] = []
                    async for raw in raws:
                        envelope = envelope_of(raw, self.batch.endpoint)
                        found.append((raw, envelope, ended[raw.place]))
                        if len(found) == FETCHED_TOGETHER:
                            await self.outcomes.write(found)
                            found = []
                    await self.outcomes.write(found)
            except (KeyError, BadLine) as error:
                raise InputGone from error
            self.ended.update(line.number for line in ended)

    async def _read_on(self) -> None:
        """Go on in the file, as far as there is room."""
        still_open = 0 if self.is_over else len(self.batch.open_lines) - len(self.ended)
        room = self.window - still_open
        end = self.batch.input_bytes
        if room <= 0 or self.read_to.offset >= end:
            return
        part: list[RawLine] = []
        async with (
            aclosing(self._open_file(self.read_to.offset)) as chunks,
            aclosing(lines_of(chunks, self.read_to)) as lines,
        ):
            async for line in lines:
                part.append(line)
                room -= 1
                size = line.next.offset - part[0].place.offset
                if room and len(part) < SLICE_LINES and size < SLICE_BYTES:
                    continue
                await self._take(part)
                part = []
                if not room or self.queue_is_full or self.room_in_s is not None:
                    return
        await self._take(part)
        if self.room_in_s is None:
            self.read_to = Cursor(self.read_to.line, max(self.read_to.offset, end))

    async def _take(self, lines: Sequence[RawLine]) -> None:
        """Deal with the next lines of the file."""
        if self.is_over:
            await self._pass_over(lines)
        else:
            lines = await self._submit_lines(lines)
        if lines:
            self.read_to = lines[-1].next

    async def _submit_lines(self, lines: Sequence[RawLine]) -> Sequence[RawLine]:
        """Submit lines, as far as there is room; returns those that are dealt with."""
        jobs: list[Job] = []
        for at, line in enumerate(lines):
            try:
                job = await self._prepare(line)
            except NoRoom as no_room:
                self.room_in_s = no_room.wait_s
                lines = lines[:at]
                break
            if job is not None:
                jobs.append(job)
                self.opened.append(line.place)
        await self._submit(jobs)
        return lines

    async def _pass_over(self, lines: Sequence[RawLine]) -> None:
        """Say of lines that get no turn any more what became of them.

        A step that was not recorded may have submitted some of them.
        """
        jobs = await asyncio.gather(*(self._job(line.place.number) for line in lines))
        ended: list[Ended] = []
        for line, job in zip(lines, jobs, strict=True):
            try:
                ended.append((line, envelope_of(line, self.batch.endpoint), job))
            except BadLine as error:
                await self.outcomes.bad(line, error)
        await self.outcomes.write(ended)

    async def _prepare(self, line: RawLine) -> Job | None:
        """The job of a line; None if the line is an error already.

        Raises:
            NoRoom: it does not fit within its account's limits yet.
        """
        # Others share the event loop, and write tokens in it.
        await asyncio.sleep(0)
        try:
            envelope = envelope_of(line, self.batch.endpoint)
        except BadLine as error:
            await self.outcomes.bad(line, error)
            return None
        number = line.place.number
        try:
            return await self._job_for(number, envelope)
        except (Unavailable, NoRoom):
            raise
        except SynapseError as error:
            await self.outcomes.refused(number, envelope, error)
        except Exception:
            # One line that we stumble over must not hold up the others for ever.
            logger.exception("line not understood", extra={"batch": self.batch.id, "line": number})
            await self.outcomes.not_understood(number, envelope)
        return None

    async def _job_for(self, number: int, envelope: Envelope) -> Job:
        batch, tools = self.batch, self.tools
        request = await tools.codec.parse(batch.endpoint, envelope.body, batch.caller)
        spec = await runnable_model(tools.registry, request.model, batch.caller)
        check_input(request.input, spec, MAX_INPUT_BYTES, request.length_at)
        command = SubmitJob(
            model=request.model,
            input=cut_to_limits(request.input, spec, batch.caller),
            priority=Priority.LOW,
            sla=LINE_TIER,
            metadata={"batch_id": batch.id, "line": str(number)},
            caller=batch.caller,
            length_at=request.length_at,
        )
        place = (batch.job_id(number), tools.clock(), batch.expires_at)
        job = new_job(command, spec, *place)
        has_open = bool(self.opened) or len(batch.open_lines) > len(self.ended)
        return await tools.counted(command, spec, job, has_open=has_open)

    async def _submit(self, jobs: Sequence[Job]) -> None:
        """Record the jobs, then have them run if the batch stands as this step knows it.

        In this order: whoever cancels the batch after that look finds the jobs on record.
        """
        standing = await self.tools.record(jobs)
        if jobs and not await self.stands():
            raise Overtaken
        self.queue_is_full = not await self.tools.send(standing)

    async def _job(self, number: int) -> Job | None:
        """A line's job as it stands; ended, if the batch is over."""
        if self.is_over:
            return await self.tools.end(self.batch, number)
        return await self.tools.store.get(self.batch.job_id(number))

    async def _open_file(self, offset: int) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(
                self.tools.file_blobs.stream(self.batch.input_key, offset)
            ) as chunks:
                async for chunk in chunks:
                    yield chunk
        except KeyError as error:
            raise InputGone from error


def _slices(lines: Sequence[OpenLine]) -> Iterator[Sequence[OpenLine]]:
    for start in range(0, len(lines), SLICE_LINES):
        yield lines[start : start + SLICE_LINES]
