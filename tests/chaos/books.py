"""What a server has written down of its jobs: to be held against what it was asked and told."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from synapse.adapters.local.job_rows import SELECT_JOB, job_of
from synapse.domain.job import Job
from synapse.domain.metering import used_by_job
from synapse.domain.usage import UsageKey, Used, summed, used_by

LOSSES = 3
"""So many workers are lost under a job before it is given up."""


@dataclass(frozen=True)
class Books:
    """The records of jobs, and what was added up of them as they ended.

    `used` are the sums that bills are made of; `reserved` names the jobs whose reservations
    are open, `spent` what its meter shows for the month (billionths of a dollar),
    None where reservations may end by their time, at what was reserved.
    """

    jobs: tuple[Job, ...]
    keys: int
    used: Mapping[UsageKey, Used]
    reserved: tuple[str, ...]
    spent: int | None

    @property
    def states(self) -> Counter[str]:
        """How many jobs there are, by state; without those that were refused after all.

        Of such a one the record was made, its message could not be sent, and the caller was told.
        """
        return Counter(job.state.value for job in self.jobs if not _was_refused(job))

    def fault(self, metered: str) -> str:
        """What does not add up, if anything; `metered` is the account whose use is limited."""
        if still_open := [job for job in self.jobs if not job.state.is_final]:
            return f"not ended: {still_open}"
        # The last loss is not written down: it ends the job.
        if early := [job for job in self.jobs if _was_given_up(job) and job.losses + 1 < LOSSES]:
            return f"given up before {LOSSES} workers were lost: {early}"
        received = summed(used_by(job) for job in self.jobs)
        if wrong := _differing(self.used, received):
            return f"added up {self.used[wrong]}, by the receipts {received.get(wrong)}: {wrong}"
        if self.used.keys() != received.keys():
            return f"added up {self.used.keys()}, used {received.keys()}"
        if self.reserved:
            left = [job for job in self.jobs if job.id in self.reserved]
            return f"all have ended, and reserved is something for {self.reserved}: {left}"
        return self._fault_of_meter(job for job in self.jobs if job.account == metered)

    def _fault_of_meter(self, jobs: Iterable[Job]) -> str:
        settled = [used for used in map(used_by_job, jobs) if used is not None]
        least = sum(used.nano_usd for used in settled)
        most = least + sum(used.warm_nano_usd for used in settled)
        if self.spent is not None and not least <= self.spent <= most:
            return f"the meter shows {self.spent} n$, the receipts {least} to {most}"
        return ""


def _was_refused(job: Job) -> bool:
    return job.failure is not None and job.failure.code == "not_queued"


def _was_given_up(job: Job) -> bool:
    return job.failure is not None and job.failure.code == "worker_lost"


def _differing(used: Mapping[UsageKey, Used], received: Mapping[UsageKey, Used]) -> UsageKey | None:
    """What is added up otherwise than the receipts say.

    A job that was cancelled as it ran costs what it has cost; its record was closed before.
    """
    for key, sums in used.items():
        receipt = received.get(key, Used())
        more = replace(sums, active=receipt.active, warm=receipt.warm)
        if more != receipt or sums.active < receipt.active or sums.warm < receipt.warm:
            return key
    return None


def of_sqlite(database: Path) -> Books:
    """The books of one machine."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        connection.execute("BEGIN")  # all of it as it was at one moment
        jobs = tuple(job_of(*row) for row in connection.execute(SELECT_JOB))
        [keys] = connection.execute("SELECT count(*) FROM idempotency").fetchone()
        reserved = tuple(name for [name] in connection.execute("SELECT name FROM reservations"))
        [spent] = connection.execute("SELECT coalesce(sum(nano_usd), 0) FROM meters").fetchone()
        used = {
            UsageKey(tenant, account, model, day): Used(*sums)
            for tenant, account, model, day, *sums in connection.execute(
                "SELECT tenant, account, model, day, requests, errors, prompt_tokens,"
                " completion_tokens, cached_tokens, active, warm FROM usage"
            )
        }
    return Books(jobs, keys, used, reserved, spent)
