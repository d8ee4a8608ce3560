"""Makes room on the disk: what the policy says, carried out."""

import os
import shutil
from pathlib import Path

from synapse_worker.cache.config import CacheConfig
from synapse_worker.cache.draft import Draft
from synapse_worker.cache.eviction import Plan, expired, room_for
from synapse_worker.cache.manifest import MANIFEST, Manifest
from synapse_worker.cache.shelf import Item, Shelf
from synapse_worker.errors import WorkerError

SPARE_BYTES = 64 << 20
"""Left on the disk for those who write to it besides."""
MIB = 1 << 20


def open_draft(shelf: Shelf, config: CacheConfig, manifest: Manifest) -> Draft:
    """A draft of the model with all its room taken already. Under its download lock.

    Raises:
        WorkerError: there is not so much room, whatever is evicted.
    """
    folder = shelf.draft(manifest.name, manifest.version)
    with shelf.guard():
        if not _is_of(folder, manifest):
            shelf.discard(folder)
        _make_room(shelf, config, manifest, folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / MANIFEST).write_bytes(manifest.render())
            return Draft(folder, manifest)
        except OSError as error:
            raise WorkerError(
                f"{folder} cannot be written: {error.strerror}", "Free some space on that disk"
            ) from error


def sweep(shelf: Shelf, config: CacheConfig, now: float) -> int:
    """Evict what has outlived its TTL or the budget; the bytes freed."""
    with shelf.guard():
        shelf.empty_trash()
        items = {str(item.folder): item for item in [*shelf.published(), *shelf.drafts()]}
        held = [item.held(config.pinned) for item in items.values()]
        gone = expired(held, now, config.ttl_s)
        kept = [each for each in held if each not in gone]
        if config.disk_budget_bytes is not None:
            gone += room_for(0, kept, config.disk_budget_bytes).evict
        return sum(shelf.evict(items[each.key]) for each in gone)


def _make_room(shelf: Shelf, config: CacheConfig, manifest: Manifest, folder: Path) -> None:
    shelf.empty_trash()
    while True:
        items = [item for item in [*shelf.published(), *shelf.drafts()] if item.folder != folder]
        plan = _plan(shelf, config, manifest, items)
        if not plan.fits:
            raise _no_room(config, manifest, plan)
        if not plan.evict:
            return
        by_key = {str(item.folder): item for item in items}
        for each in plan.evict:
            shelf.evict(by_key[each.key])  # one that is used by now stays: look again


def _plan(shelf: Shelf, config: CacheConfig, manifest: Manifest, items: list[Item]) -> Plan:
    held = [item.held(config.pinned) for item in items]
    on_disk = sum(each.size_bytes for each in held)
    taken = _allocated_bytes(shelf.draft(manifest.name, manifest.version))
    budget = on_disk + taken + shutil.disk_usage(shelf.root).free - SPARE_BYTES
    if config.disk_budget_bytes is not None:
        budget = min(budget, config.disk_budget_bytes)
    return room_for(manifest.total_bytes, held, budget)


def _no_room(config: CacheConfig, manifest: Manifest, plan: Plan) -> WorkerError:
    budget = config.disk_budget_bytes
    of = "on the disk" if budget is None else f"in a budget of {budget / MIB:,.0f} MiB"
    return WorkerError(
        f"There is no room for {manifest.name} ({manifest.total_bytes / MIB:,.0f} MiB) {of}: "
        f"{plan.short_bytes / MIB:,.0f} MiB are missing besides what is in use or pinned",
        f"Unload a model, unpin one, or give {config.folder} more room",
    )


def _is_of(folder: Path, manifest: Manifest) -> bool:
    try:
        return (folder / MANIFEST).read_bytes() == manifest.render()
    except OSError:
        return False


def _allocated_bytes(folder: Path) -> int:
    """Only of a folder that nobody else writes to."""
    found = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    return sum(path.stat().st_blocks * 512 for path in found)
