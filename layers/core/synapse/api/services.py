"""What the routes need, wired once by each entry point."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from synapse.api.gate import Identify
from synapse.api.retries import Retries
from synapse.application.direct import DirectLane
from synapse.application.file_batches import FileBatches
from synapse.application.files import Files
from synapse.application.fleet_view import FleetView
from synapse.application.health import Health
from synapse.application.keys import Keys
from synapse.application.login import Login
from synapse.application.response_cache import ResponseCache
from synapse.application.results import Results
from synapse.application.submit import Submitter
from synapse.application.uploads import Uploads
from synapse.application.usage_reports import UsageReports
from synapse.application.webhooks import Webhooks
from synapse.domain.file import StoredFile
from synapse.domain.job import JobId
from synapse.ports import Registry


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases behind the routes, and what differs between the targets.

    `abort` stops a running job's work where its runner can be reached; `metrics` renders the
    Prometheus exposition; `max_wait_s` is how long the front door can hold a request that waits
    for a job, `max_direct_s` one that is answered on the spot. `file_link` says where else a file
    is to be read that the front door could not answer with. `health` says how the workers are.
    `fleet` is what operators are shown of it. `identify` tells who calls, `recognise` who calls a
    route that is for everybody: the same, unless another front door asks nobody there. `login`
    gives tokens for passwords, where there are any. `cors_origins` are those whose pages may call
    from a browser.
    """

    identify: Identify
    keys: Keys
    usage: UsageReports
    submitter: Submitter
    webhooks: Webhooks
    direct: DirectLane
    cache: ResponseCache
    results: Results
    registry: Registry
    files: Files
    uploads: Uploads
    batches: FileBatches
    file_link: Callable[[StoredFile], Awaitable[str | None]]
    default_model: str
    max_wait_s: float
    abort: Callable[[JobId], None]
    metrics: Callable[[], Awaitable[str]]
    health: Callable[[], Awaitable[Health]]
    fleet: FleetView
    max_direct_s: float = 600.0
    retries: Retries = field(default_factory=Retries)
    login: Login | None = None
    recognise: Identify | None = None
    cors_origins: Sequence[str] = ()
