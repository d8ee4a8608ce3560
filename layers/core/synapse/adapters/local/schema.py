"""The database's tables, as the steps that made them."""

from __future__ import annotations

from synapse.adapters.local.sqlite_file import Steps

APPLICATION_ID = 0x53594E41
"""Marks the file as ours ("SYNA")."""

# `doc` is the job's record as JSON without its two long texts; the other columns repeat what is
# searched by. `n` counts acceptances. `due_at` is null once the job has ended, which is what
# keeps the index of open jobs small.
_FIRST = (
    """
    CREATE TABLE jobs (
        n INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL,
        due_at REAL,
        deadline_at REAL NOT NULL,
        payload TEXT,
        result TEXT,
        doc TEXT NOT NULL
    )
    """,
    "CREATE INDEX jobs_open ON jobs (due_at, state) WHERE due_at IS NOT NULL",
    "CREATE INDEX jobs_by_deadline ON jobs (deadline_at)",
    """
    CREATE TABLE idempotency (
        tenant TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        job_id TEXT NOT NULL,
        PRIMARY KEY (tenant, key)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX idempotency_job ON idempotency (job_id)",
    """
    CREATE TABLE service_rates (
        model TEXT PRIMARY KEY,
        items INTEGER NOT NULL,
        busy_s REAL NOT NULL
    ) WITHOUT ROWID
    """,
)

# As in `jobs`, `doc` is the record as JSON; ids begin with the time at which they were made.
_FILES = (
    """
    CREATE TABLE files (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        purpose TEXT NOT NULL,
        expires_at REAL NOT NULL,
        doc TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX files_by_tenant ON files (tenant, id)",
    "CREATE INDEX files_by_expiry ON files (expires_at)",
    """
    CREATE TABLE uploads (
        id TEXT PRIMARY KEY,
        expires_at REAL NOT NULL,
        doc TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX uploads_by_expiry ON uploads (expires_at)",
    """
    CREATE TABLE upload_parts (
        upload_id TEXT NOT NULL,
        id TEXT NOT NULL,
        doc TEXT NOT NULL,
        PRIMARY KEY (upload_id, id)
    ) WITHOUT ROWID
    """,
)

_FILE_BATCHES = (
    """
    CREATE TABLE file_batches (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        expires_at REAL NOT NULL,
        is_open INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        doc TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX file_batches_by_tenant ON file_batches (tenant, id)",
    "CREATE INDEX file_batches_open ON file_batches (id) WHERE is_open",
    "CREATE INDEX file_batches_by_expiry ON file_batches (expires_at)",
)

# No pool's name stands for all pools together, as what was measured before they were told apart.
_RATES_BY_POOL = (
    "ALTER TABLE service_rates RENAME TO rates_of_models",
    """
    CREATE TABLE service_rates (
        model TEXT NOT NULL,
        pool TEXT NOT NULL DEFAULT '',
        items INTEGER NOT NULL,
        busy_s REAL NOT NULL,
        PRIMARY KEY (model, pool)
    ) WITHOUT ROWID
    """,
    """
    INSERT INTO service_rates (model, items, busy_s)
        SELECT model, items, busy_s FROM rates_of_models
    """,
    "DROP TABLE rates_of_models",
)

# `doc` is the profile as JSON.
_PROFILES = (
    """
    CREATE TABLE profiles (
        model TEXT NOT NULL,
        version TEXT NOT NULL,
        pool TEXT NOT NULL,
        doc TEXT NOT NULL,
        PRIMARY KEY (model, version, pool)
    ) WITHOUT ROWID
    """,
)

# `active` and `warm` are costs in picodollars.
_USAGE = (
    """
    CREATE TABLE usage (
        tenant TEXT NOT NULL,
        day TEXT NOT NULL,
        account TEXT NOT NULL,
        model TEXT NOT NULL,
        requests INTEGER NOT NULL,
        errors INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        active INTEGER NOT NULL,
        warm INTEGER NOT NULL,
        PRIMARY KEY (tenant, day, account, model)
    ) WITHOUT ROWID
    """,
)

# What meters show, in whole numbers (money in billionths of a dollar), and the open reservations
# of jobs as JSON. No account stands for all of a tenant's.
_METERS = (
    """
    CREATE TABLE meters (
        tenant TEXT NOT NULL,
        account TEXT NOT NULL DEFAULT '',
        minute INTEGER NOT NULL,
        requests INTEGER NOT NULL,
        tokens INTEGER NOT NULL,
        month TEXT NOT NULL,
        nano_usd INTEGER NOT NULL,
        PRIMARY KEY (tenant, account)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE reservations (
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        expires_at INTEGER NOT NULL,
        doc TEXT NOT NULL,
        PRIMARY KEY (tenant, name, expires_at)
    ) WITHOUT ROWID
    """,
)

# `untold` marks a job whose end is to be told, and has not been yet. `doc` is the delivery as JSON,
# `due_at` null once it has ended.
_WEBHOOKS = (
    "ALTER TABLE jobs ADD COLUMN untold INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX jobs_untold ON jobs (n) WHERE untold AND due_at IS NULL",
    "ALTER TABLE file_batches ADD COLUMN untold INTEGER NOT NULL DEFAULT 1",
    "UPDATE file_batches SET untold = 0 WHERE NOT is_open",
    "CREATE INDEX file_batches_untold ON file_batches (id) WHERE untold AND NOT is_open",
    """
    CREATE TABLE deliveries (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        subject TEXT NOT NULL,
        host TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        due_at REAL,
        created_at REAL NOT NULL,
        doc TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX deliveries_due ON deliveries (host, due_at) WHERE due_at IS NOT NULL",
    "CREATE INDEX deliveries_by_subject ON deliveries (subject, id)",
    "CREATE INDEX deliveries_by_age ON deliveries (created_at)",
)

# Tenants take turns, so what is due is looked for by tenant.
_DELIVERIES_BY_TENANT = (
    "DROP INDEX deliveries_due",
    "CREATE INDEX deliveries_due ON deliveries (tenant, host, due_at) WHERE due_at IS NOT NULL",
)

MIGRATIONS: Steps = (
    _FIRST,
    _FILES,
    _FILE_BATCHES,
    _RATES_BY_POOL,
    _PROFILES,
    _USAGE,
    _METERS,
    _WEBHOOKS,
    _DELIVERIES_BY_TENANT,
)
"""A released step is never edited."""
