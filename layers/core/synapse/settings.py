"""What the environment of a Lambda says, read once into a frozen object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from synapse.domain.job import Priority
from synapse.domain.pool import Pool


class SettingsError(Exception):
    """A setting is missing or malformed; the message names its key."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the AWS target; a function is given only those that it needs."""

    jobs_table: str
    registry_table: str
    files_table: str
    blob_bucket: str
    queue_urls: Mapping[Priority, str]
    batcher_arn: str
    file_batcher_arn: str
    pools: tuple[Pool, ...]
    service: str
    default_model: str

    @staticmethod
    def load(environ: Mapping[str, str]) -> Settings:
        """Read the settings.

        Raises:
            SettingsError: a key is missing or its value malformed.
        """
        return Settings(
            jobs_table=_required(environ, "SYNAPSE_JOBS_TABLE"),
            registry_table=_required(environ, "SYNAPSE_REGISTRY_TABLE"),
            files_table=_required(environ, "SYNAPSE_FILES_TABLE"),
            blob_bucket=_required(environ, "SYNAPSE_BLOB_BUCKET"),
            queue_urls=_queue_urls(environ),
            batcher_arn=environ.get("SYNAPSE_BATCHER_ARN", ""),
            file_batcher_arn=environ.get("SYNAPSE_FILE_BATCHER_ARN", ""),
            pools=_pools(environ),
            service=environ.get("POWERTOOLS_SERVICE_NAME", "synapse"),
            default_model=environ.get("SYNAPSE_DEFAULT_MODEL", "smollm2-135m-instruct"),
        )


def _required(environ: Mapping[str, str], key: str) -> str:
    value = environ.get(key, "")
    if not value:
        raise SettingsError(f"{key} is not set")
    return value


def _json(environ: Mapping[str, str], key: str, default: str) -> object:
    try:
        value: object = json.loads(environ.get(key) or default)
    except ValueError as error:
        raise SettingsError(f"{key} is not valid JSON: {error}") from error
    return value


def _queue_urls(environ: Mapping[str, str]) -> dict[Priority, str]:
    urls = _json(environ, "SYNAPSE_QUEUE_URLS", "{}")
    if not isinstance(urls, dict):
        raise SettingsError("SYNAPSE_QUEUE_URLS must be an object of priority → queue URL")
    return {priority: urls[priority.value] for priority in Priority if priority.value in urls}


def _pools(environ: Mapping[str, str]) -> tuple[Pool, ...]:
    entries = _json(environ, "SYNAPSE_POOLS", "[]")
    if not isinstance(entries, list):
        raise SettingsError("SYNAPSE_POOLS must be a list of pools")
    try:
        return tuple(
            Pool(
                name=entry["name"],
                accelerator=entry["accelerator"],
                endpoint=entry.get("endpoint", ""),
                runner=entry.get("runnerArn", ""),
                price_per_hour_usd=float(entry.get("pricePerHour", 0)),
            )
            for entry in entries
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"SYNAPSE_POOLS: a pool lacks or misstates {error}") from error
