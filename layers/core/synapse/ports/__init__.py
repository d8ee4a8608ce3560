"""What the use cases need of the world outside, named by need; adapters implement these.

All calls are coroutines: on one machine they never block the event loop; on AWS, where a
function handles one request at a time, an adapter may simply block inside them.
"""

from synapse.ports.batcher import BatchOrder, BatchStarter
from synapse.ports.blobs import BlobStore
from synapse.ports.clock import Clock
from synapse.ports.demand import Arrivals, DemandSource, StartTimes, Waker
from synapse.ports.engine import InferenceEngine, InferenceRequest, StreamingEngine
from synapse.ports.files import FileQuery, FileStore, UploadStore
from synapse.ports.in_flight import Entry, InFlight
from synapse.ports.jobs import Created, Idempotency, JobQueue, JobStore
from synapse.ports.keys import KeyStore
from synapse.ports.loading import FailedLoads, ModelLoader
from synapse.ports.profiles import ProfileStore
from synapse.ports.registry import Registry
from synapse.ports.telemetry import Telemetry
from synapse.ports.tokens import TokenVerifier
from synapse.ports.usage import IdleMeter, UsageStore
from synapse.ports.workers import Capacity, Environments, WorkerRegistry

__all__ = [
    "Arrivals",
    "BatchOrder",
    "BatchStarter",
    "BlobStore",
    "Capacity",
    "Clock",
    "Created",
    "DemandSource",
    "Entry",
    "Environments",
    "FailedLoads",
    "FileQuery",
    "FileStore",
    "Idempotency",
    "IdleMeter",
    "InFlight",
    "InferenceEngine",
    "InferenceRequest",
    "JobQueue",
    "JobStore",
    "KeyStore",
    "ModelLoader",
    "ProfileStore",
    "Registry",
    "StartTimes",
    "StreamingEngine",
    "Telemetry",
    "TokenVerifier",
    "UploadStore",
    "UsageStore",
    "Waker",
    "WorkerRegistry",
]
