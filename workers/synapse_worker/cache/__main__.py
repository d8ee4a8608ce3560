"""Publish, fetch and look after models by hand: `python -m synapse_worker.cache --help`."""

import argparse
import asyncio
import sys
from pathlib import Path

from synapse_worker.cache.config import CacheConfig
from synapse_worker.cache.entries import Progress
from synapse_worker.cache.manifest import PART_BYTES
from synapse_worker.cache.model_cache import ModelCache
from synapse_worker.cache.publishing import Edition, publish
from synapse_worker.errors import WorkerError

MIB = 1 << 20


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m synapse_worker.cache", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    one = commands.add_parser("publish", help="copy a model's folder into a store")
    one.add_argument("folder", type=Path)
    one.add_argument("store", help="s3://bucket/prefix or a folder")
    one.add_argument("--name", help="of the model; the folder's name unless given")
    one.add_argument("--version", help="made of the content unless given")
    about = "what it takes when loaded, about; as much as its files unless given"
    one.add_argument("--memory-mib", type=int, help=about)
    one.add_argument("--part-mib", type=int, default=PART_BYTES // MIB, help="of a part")

    one = commands.add_parser("fetch", help="bring a model into a cache, and print where it is")
    one.add_argument("store", help="s3://bucket/prefix, an http(s) address or a folder")
    one.add_argument("name")
    one.add_argument("--version", help="the store's latest unless given")
    one.add_argument("--cache", type=Path, required=True, help="the cache's folder")
    one.add_argument("--budget-mib", type=int, help="of the cache; all of the disk unless given")
    return parser.parse_args(arguments)


async def run(given: argparse.Namespace) -> None:
    """Carry out what was asked for."""
    if given.command == "publish":
        memory_bytes = None if given.memory_mib is None else given.memory_mib * MIB
        name = given.name or given.folder.resolve().name
        edition = Edition(name, given.version, memory_bytes, given.part_mib * MIB)
        manifest = publish(given.folder, given.store, edition)
        _say(f"{manifest.name} {manifest.version}: {manifest.total_bytes / MIB:,.1f} MiB")
        return
    budget = None if given.budget_mib is None else given.budget_mib * MIB
    cache = ModelCache(CacheConfig(given.store, given.cache, disk_budget_bytes=budget))
    sys.stdout.write(f"{await cache.ensure(given.name, given.version, _progress)}\n")


def _progress(progress: Progress) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{progress.share:6.1%} of {progress.total_bytes / MIB:,.0f} MiB ")
        sys.stderr.write("\n" * (progress.done_bytes == progress.total_bytes))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> None:
    """Entry point of `python -m synapse_worker.cache`."""
    try:
        asyncio.run(run(parse()))
    except WorkerError as error:
        _say(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
