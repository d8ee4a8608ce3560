"""The jobs a process works with, as they stand between memory and disk."""

from __future__ import annotations

from dataclasses import dataclass

from synapse.domain.job import Job, JobId

JOB_BYTES = 1024
"""What a job takes in memory besides its texts, about."""


@dataclass(frozen=True, slots=True)
class _Unsaved:
    newest: Job
    shown: Job


class JobMemory:
    """Knows of each job the newest state, and the one that may be shown.

    They differ while an end is on its way to the disk: it already decides what may still be done
    to the job, but nobody may be told of it, for it might not get there.

    Unsaved jobs are kept until they are saved; beside them there is a cache of saved ones, in two
    generations: when the young one is full it becomes the old one and the old one is forgotten.
    """

    def __init__(self, cache_bytes: int) -> None:
        self.generation = 0
        self._unsaved: dict[JobId, _Unsaved] = {}
        self._young: dict[JobId, Job] = {}
        self._old: dict[JobId, Job] = {}
        self._young_bytes = 0
        self._generation_bytes = cache_bytes // 2

    def newest(self, job_id: JobId) -> Job | None:
        """The job as decisions must see it; None if it is not in memory."""
        unsaved = self._unsaved.get(job_id)
        return unsaved.newest if unsaved else self._cached(job_id)

    def shown(self, job_id: JobId) -> Job | None:
        """The job as callers may see it; None if it is not in memory."""
        unsaved = self._unsaved.get(job_id)
        return unsaved.shown if unsaved else self._cached(job_id)

    def changed(self, newest: Job, shown: Job) -> None:
        """Note a change that is not on disk yet."""
        self._unsaved[newest.id] = _Unsaved(newest, shown)

    def forget(self, job_id: JobId) -> None:
        """Drop an unsaved job that will never be saved."""
        self._unsaved.pop(job_id, None)

    def saved(self, job: Job) -> None:
        """Note that `job`, in just this state, is on disk."""
        unsaved = self._unsaved.get(job.id)
        if unsaved is not None and unsaved.newest is job:
            del self._unsaved[job.id]
        self._remember(job)

    def is_newest(self, job: Job) -> bool:
        """Whether `job` is an unsaved change that nothing has overtaken."""
        unsaved = self._unsaved.get(job.id)
        return unsaved is not None and unsaved.newest is job

    def forget_saved(self) -> None:
        """Empty the cache, because the records were changed behind its back."""
        self._young, self._old, self._young_bytes = {}, {}, 0
        self.generation += 2

    def may_have_forgotten_since(self, generation: int) -> bool:
        """Whether a job remembered after `generation` was read might be forgotten by now."""
        return self.generation - generation >= 2

    def _cached(self, job_id: JobId) -> Job | None:
        return self._young.get(job_id) or self._old.get(job_id)

    def _remember(self, job: Job) -> None:
        known = self._young.get(job.id)
        self._young_bytes += _size_bytes(job) - (_size_bytes(known) if known else 0)
        self._young[job.id] = job
        if self._young_bytes > self._generation_bytes:
            self._young, self._old, self._young_bytes = {}, self._young, 0
            self.generation += 1


def _size_bytes(job: Job) -> int:
    payload = len(job.payload.inline or "")
    result = len(job.result.inline or "") if job.result else 0
    return JOB_BYTES + payload + result
