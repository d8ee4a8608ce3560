"""What a caller may say about the cache."""

from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class TransferConfig:
    """How a model is fetched.

    One connection to S3 brings 50 to 90 MB/s whatever the link, hence many of them: 16 fill 10
    Gb/s. A part that has brought less than `BUFFER_BYTES` within `stall_timeout_s` is started
    again on another connection, which counts as one of its `attempts`.
    """

    connections: int = 16
    attempts: int = 6
    connect_timeout_s: float = 5.0
    stall_timeout_s: float = 15.0
    base_delay_s: float = 0.1
    max_delay_s: float = 10.0


@dataclass(frozen=True)
class CacheConfig:
    """Where models come from, where they are kept, and how many of them.

    `source` is `s3://bucket/prefix`, a folder, or the `http(s)://` address of one. Several
    processes may share `folder`; they should agree on the rest. `disk_budget_bytes` bounds what
    lies in it (None: what the disk has), `memory_budget_bytes` what is loaded at a time (None: no
    bound). A model unused for `ttl_s` goes even if there is room (None: it stays). `pinned` names
    models that are never evicted.
    """

    source: str
    folder: Path
    disk_budget_bytes: int | None = None
    memory_budget_bytes: int | None = None
    ttl_s: float | None = None
    pinned: frozenset[str] = frozenset()
    transfer: TransferConfig = field(default_factory=TransferConfig)
