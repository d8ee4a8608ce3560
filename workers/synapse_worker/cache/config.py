"""What a caller may say about the cache."""

import random
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class TransferConfig:
    """How a model is fetched.

    One connection to S3 brings 50 to 90 MB/s whatever the link, hence many of them: 16 fill 10
    Gb/s. A part that has brought less than `BUFFER_BYTES` within `stall_timeout_s` is started
    again on another connection, which counts as one of its `attempts`. What failed is tried again
    after a delay that doubles from `base_delay_s` to `max_delay_s`, with full jitter: a store that
    is away for ten seconds is waited for.
    """

    connections: int = 16
    attempts: int = 8
    connect_timeout_s: float = 5.0
    stall_timeout_s: float = 15.0
    base_delay_s: float = 0.25
    max_delay_s: float = 10.0

    def delay_s(self, failures: int) -> float:
        """How long to wait after so many failures in a row, by chance."""
        return random.random() * min(self.max_delay_s, self.base_delay_s * 2.0 ** (failures - 1))


@dataclass(frozen=True)
class CacheConfig:
    """Where models come from, where they are kept, and how many of them.

    `source` is `s3://bucket/prefix`, a folder, or the `http(s)://` address of one. Several
    processes may share `folder`; they should agree on the rest. `disk_budget_bytes` bounds what
    lies in it (None: what the disk has). A model unused for `ttl_s` goes even if there is room
    (None: it stays). `pinned` names models that are never evicted.
    """

    source: str
    folder: Path
    disk_budget_bytes: int | None = None
    ttl_s: float | None = None
    pinned: frozenset[str] = frozenset()
    transfer: TransferConfig = field(default_factory=TransferConfig)
