"""The models on this machine's disk: fetched from a store, kept in a budget, never half there."""

from synapse_worker.cache.config import CacheConfig as CacheConfig
from synapse_worker.cache.config import TransferConfig as TransferConfig
from synapse_worker.cache.entries import CachedModel as CachedModel
from synapse_worker.cache.entries import CacheLevel as CacheLevel
from synapse_worker.cache.entries import Progress as Progress
from synapse_worker.cache.entries import ProgressListener as ProgressListener
from synapse_worker.cache.eviction import Held as Held
from synapse_worker.cache.eviction import Plan as Plan
from synapse_worker.cache.leases import Lease as Lease
from synapse_worker.cache.model_cache import ModelCache as ModelCache
