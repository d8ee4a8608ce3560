"""A submission that is held until its job has ended: one request instead of two."""

from __future__ import annotations

import asyncio

from synapse.application.intake import SubmitJob
from synapse.application.results import JobView, Results
from synapse.application.submit import Accepted, Submitter
from synapse.domain.errors import SynapseError


async def submit_and_wait(
    submitter: Submitter, results: Results, command: SubmitJob, wait_s: float
) -> tuple[Accepted, JobView | None]:
    """Submit a job, and see it end if it does so within `wait_s` seconds from now.

    Once it is accepted nothing but that is told of it: where it cannot be read, or the server
    stops, it is as if it had not ended yet. Who hangs up leaves the job as it is.

    Raises:
        RequestError: the request is at fault; nothing was recorded.
        Unavailable: as `Submitter.submit` does.
    """
    now = asyncio.get_running_loop().time
    give_up_at = now() + wait_s
    # One that is being recorded when its client hangs up is recorded to the end.
    accepted = await asyncio.shield(submitter.submit(command))
    try:
        left_s = max(0.0, give_up_at - now())
        view = await results.get(accepted.job.id, command.caller.tenant, left_s)
    except (SynapseError, asyncio.CancelledError):
        return accepted, None
    return accepted, view if view.job.state.is_final else None
