"""Bring a file batch forward, step by step; the same on both targets.

Each step starts from the record's checkpoint and ends by writing the next one, on condition that
nobody else has: a step may be run twice, at once or after a crash, and the second finds the jobs
that the first made. No line runs twice to completion, because its job's id is its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from hashlib import sha256

from synapse.application.batch_lines import look_through
from synapse.application.batch_parts import compacted, joined, part_key
from synapse.application.batch_step import BatchStep, InputGone, Overtaken
from synapse.application.checks import runnable_model
from synapse.application.files import Files
from synapse.application.line_tools import LineTools
from synapse.application.revocations import Revocations
from synapse.domain.access import Principal
from synapse.domain.errors import Unavailable, UnknownModel
from synapse.domain.file import MAX_EXPIRY_S, FileId, NewFile, Purpose
from synapse.domain.file_batch import (
    FileBatch,
    FileBatchId,
    FileBatchStatus,
    LineFault,
    OpenLine,
    Pace,
)
from synapse.ports.file_batches import FileBatchStore

logger = logging.getLogger(__name__)

WINDOW_LINES = 500
"""Lines of a batch under way at once: enough to keep workers busy between two steps, few enough
that batches beside each other take turns."""

WITHDRAW_PAUSES_S = (0.0, 0.2, 1.0)
"""Before each try to end jobs that are not to run: nobody looks for them later."""

SEEN_EVERY_S = 60.0
"""How often the record says that somebody looks after the batch, though nothing has moved."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Whether the batch has ended, and if not, when to look again."""

    is_done: bool
    wait_s: float = 0.0


DONE = Progress(is_done=True)
AGAIN = Progress(is_done=False)


@dataclass(frozen=True, slots=True)
class Advancer:
    """The use case that drives a batch; `advance` is called until it is done."""

    batches: FileBatchStore
    files: Files
    tools: LineTools
    pace: Pace
    revocations: Revocations | None = None

    async def advance(
        self, tenant: str, batch_id: FileBatchId, window: int = WINDOW_LINES
    ) -> Progress:
        """One step forward, with at most `window` lines open.

        Raises:
            Unavailable: something cannot be reached; call again later.
        """
        batch = await self.batches.get(tenant, batch_id)
        if batch is None or batch.status.is_final:
            return DONE
        wanted = await self._wanted(batch)
        step = BatchStep(wanted, window, self.tools, lambda: self._stands(batch))
        try:
            after = await self._step(wanted, step)
        except InputGone:
            after = await self._without_input(wanted, step)
        except Overtaken:
            await self._withdraw(step)
            return AGAIN
        except Unavailable:
            await self._withdraw(step)
            raise
        progress = await self._save(batch, after, step)
        if progress.is_done or step.room_in_s is None:
            return progress
        return Progress(is_done=False, wait_s=max(progress.wait_s, step.room_in_s))

    async def _wanted(self, batch: FileBatch) -> FileBatch:
        """The batch; one whose key was revoked with its jobs is being cancelled."""
        caller = batch.caller
        if (
            self.revocations is not None
            and batch.status in (FileBatchStatus.VALIDATING, FileBatchStatus.IN_PROGRESS)
            and await self.revocations.are_stopped(caller.tenant, caller.account)
        ):
            logger.info("file batch cancelled: its key is revoked", extra={"batch": batch.id})
            return batch.moved(FileBatchStatus.CANCELLING, self.tools.clock())
        return batch

    async def _stands(self, batch: FileBatch) -> bool:
        current = await self.batches.get(batch.tenant, batch.id)
        return current is not None and current.revision == batch.revision

    async def _withdraw(self, step: BatchStep) -> None:
        """End the jobs of a step that does not count, unless whoever was faster wants them run.

        A batch may have been cancelled and brought to its end beside the step: its lines that had
        no job by then are told of as cancelled, and nobody else would look for the jobs.
        """
        left = list(step.opened)
        for pause_s in WITHDRAW_PAUSES_S:
            if not left:
                return
            await asyncio.sleep(pause_s)
            left = await self._not_ended(step.batch, left)
        if left:
            lines = [line.number for line in left]
            logger.error("lines not ended", extra={"batch": step.batch.id, "lines": lines})

    async def _not_ended(self, batch: FileBatch, lines: Sequence[OpenLine]) -> list[OpenLine]:
        """End the jobs of lines that nobody wants run; those that could not be ended just now."""
        try:
            current = await self.batches.get(batch.tenant, batch.id) or batch
        except Unavailable:
            return list(lines)
        unwanted = [line for line in lines if not current.wants(line, self.tools.clock())]
        ended = await asyncio.gather(*(self._has_ended(current, line) for line in unwanted))
        return [line for line, has_ended in zip(unwanted, ended, strict=True) if not has_ended]

    async def _has_ended(self, batch: FileBatch, line: OpenLine) -> bool:
        try:
            await self.tools.end(batch, line.number)
        except Unavailable:
            return False
        return True

    async def _step(self, batch: FileBatch, step: BatchStep) -> FileBatch:
        match batch.status:
            case FileBatchStatus.VALIDATING:
                return await self._validate(batch)
            case FileBatchStatus.FINALIZING:
                return await self._ended(batch, FileBatchStatus.COMPLETED)
            case FileBatchStatus.CANCELLING if FileBatchStatus.IN_PROGRESS not in batch.entered:
                return batch.moved(FileBatchStatus.CANCELLED, self.tools.clock())
        stepped = await step.run()
        batch = await compacted(batch, self.tools.blobs, self.tools.new_part)
        after = batch.stepped(stepped, self.tools.clock())
        if not after.is_drained:
            return after
        if after.status is FileBatchStatus.CANCELLING:
            return await self._ended(after, FileBatchStatus.CANCELLED)
        if step.is_over:
            return await self._ended(after, FileBatchStatus.EXPIRED)
        return after.moved(FileBatchStatus.FINALIZING, self.tools.clock())

    async def _validate(self, batch: FileBatch) -> FileBatch:
        try:
            async with aclosing(self.tools.file_blobs.stream(batch.input_key)) as chunks:
                findings = await look_through(chunks, batch.endpoint)
        except KeyError as error:
            raise InputGone from error
        if findings.faults:
            return batch.failed(findings.faults, self.tools.clock())
        model = await self._model(findings.models, batch.caller)
        now = self.tools.clock()
        return batch.validated(findings.total, findings.size_bytes, model, now)

    async def _model(self, named: Sequence[str], caller: Principal) -> str | None:
        """The first of these models that is run for the caller; None if none is."""
        for name in named:
            with suppress(UnknownModel):
                return (await runnable_model(self.tools.registry, name, caller)).name
        return None

    async def _without_input(self, batch: FileBatch, step: BatchStep) -> FileBatch:
        """Give up a batch whose file is gone; what was answered is kept."""
        for line in (*batch.open_lines, *step.opened):
            await self.tools.end(batch, line.number)
        files = await self._with_files(batch)
        if batch.status is FileBatchStatus.CANCELLING:
            return files.moved(FileBatchStatus.CANCELLED, self.tools.clock())
        fault = LineFault("input_file_gone", "the input file was deleted", "input_file_id")
        return replace(files, open_lines=()).failed([fault], self.tools.clock())

    async def _ended(self, batch: FileBatch, status: FileBatchStatus) -> FileBatch:
        return (await self._with_files(batch)).moved(status, self.tools.clock())

    async def _with_files(self, batch: FileBatch) -> FileBatch:
        return replace(
            batch,
            output_file_id=await self._file(batch, "output", batch.output_parts),
            error_file_id=await self._file(batch, "error", batch.error_parts),
        )

    async def _file(self, batch: FileBatch, kind: str, parts: tuple[str, ...]) -> FileId | None:
        """Make a file of parts; making it again changes nothing, since its id is the same."""
        if not parts:
            return None
        new = NewFile(
            filename=f"{batch.id}_{kind}.jsonl",
            purpose=Purpose.BATCH_OUTPUT,
            expires_after_s=batch.output_expires_after_s or MAX_EXPIRY_S,
            tenant=batch.tenant,
        )
        chunks = joined(batch, self.tools.blobs, parts)
        return (await self.files.write(_file_id(batch, kind), new, chunks)).id

    async def _save(self, before: FileBatch, after: FileBatch, step: BatchStep) -> Progress:
        now = self.tools.clock()
        if after != before or now - before.advanced_at >= SEEN_EVERY_S:
            after = replace(after, revision=before.revision + 1, advanced_at=now)
            if not await self.batches.save(after):
                await self._withdraw(step)
                return AGAIN
            await self._clear_up(before, after)
        if after.status.is_final:
            return DONE
        if after.status is not before.status or after.is_over_at(now):
            return AGAIN
        return Progress(is_done=False, wait_s=self.pace.wait_s(after, now))

    async def _clear_up(self, before: FileBatch, after: FileBatch) -> None:
        """Delete parts whose lines are elsewhere now. What a crash leaves of them goes with age."""
        parts = {*before.output_parts, *before.error_parts}
        if after.status.is_final:
            extra = {"batch": after.id, "status": after.status.value}
            logger.info("file batch ended", extra=extra)
            self.tools.telemetry.file_batch_ended(after)
            parts |= {*after.output_parts, *after.error_parts}
        else:
            parts -= {*after.output_parts, *after.error_parts}
        blobs = self.tools.blobs
        await asyncio.gather(*(blobs.delete(part_key(after, part)) for part in parts))


def _file_id(batch: FileBatch, kind: str) -> FileId:
    """An id as files have it, 12 digits of the time and 20 more, that follows from the batch."""
    entered = batch.entered
    at = entered.get(FileBatchStatus.FINALIZING) or entered.get(FileBatchStatus.CANCELLING)
    digest = sha256(f"{batch.id}/{kind}".encode()).hexdigest()
    return FileId(f"file-{int((at or batch.expires_at) * 1000):012x}{digest[:20]}")
