"""What the environment of a Lambda says, read once into a frozen object."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from synapse.adapters.tokens.issuer import COGNITO_CLIENT_ID, OidcIssuer, oidc_issuer
from synapse.domain.extension import Extension, Extensions
from synapse.domain.job import Priority
from synapse.domain.origin import origins_of
from synapse.domain.pool import Pool, WarmWindow

CORS_ORIGINS = "SYNAPSE_CORS_ORIGINS"
POOLS = "SYNAPSE_POOLS"
WARM = "SYNAPSE_WARM"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class SettingsError(Exception):
    """A setting is missing or malformed; the message names its key."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the AWS target; a function is given only those that it needs.

    `pools` are those that the function may use, `capacities` the ARNs of what the autoscaler makes
    larger and smaller, by pool; `scaler` is the function that does. `issuer` is whose tokens are
    accepted beside keys; by the client `cognito_client_id` people sign in. Pages of `cors_origins`
    may call from a browser. Warm windows that are not to be understood are left out, since work
    can be done without: `unheeded` says why. Likewise those of pools that the function has not,
    `homeless`.
    """

    jobs_table: str
    registry_table: str
    files_table: str
    access_table: str
    blob_bucket: str
    queue_urls: Mapping[Priority, str]
    batcher_arn: str
    file_batcher_arn: str
    pools: tuple[Pool, ...]
    capacities: Mapping[str, str]
    scaler: str
    service: str
    default_model: str
    webhooks_table: str
    webhook_queue_url: str
    webhook_allow: str
    issuer: OidcIssuer | None = None
    cognito_client_id: str = ""
    cors_origins: tuple[str, ...] = ()
    homeless: tuple[str, ...] = ()
    unheeded: tuple[str, ...] = ()

    @staticmethod
    def load(environ: Mapping[str, str]) -> Settings:
        """Read the settings.

        Raises:
            SettingsError: a key is missing or its value malformed.
        """
        warm, unheeded = _warm_windows(environ)
        pools = _pools(environ, warm)
        return Settings(
            jobs_table=_required(environ, "SYNAPSE_JOBS_TABLE"),
            registry_table=_required(environ, "SYNAPSE_REGISTRY_TABLE"),
            files_table=_required(environ, "SYNAPSE_FILES_TABLE"),
            access_table=_required(environ, "SYNAPSE_ACCESS_TABLE"),
            blob_bucket=_required(environ, "SYNAPSE_BLOB_BUCKET"),
            queue_urls=_queue_urls(environ),
            batcher_arn=environ.get("SYNAPSE_BATCHER_ARN", ""),
            file_batcher_arn=environ.get("SYNAPSE_FILE_BATCHER_ARN", ""),
            pools=pools,
            capacities=_capacities(environ),
            scaler=environ.get("SYNAPSE_SCALER_ARN", ""),
            service=environ.get("POWERTOOLS_SERVICE_NAME", "synapse"),
            default_model=environ.get("SYNAPSE_DEFAULT_MODEL", "smollm2-135m-instruct"),
            webhooks_table=environ.get("SYNAPSE_WEBHOOKS_TABLE", ""),
            webhook_queue_url=environ.get("SYNAPSE_WEBHOOK_QUEUE_URL", ""),
            webhook_allow=environ.get("SYNAPSE_WEBHOOK_ALLOW", ""),
            issuer=_issuer(environ),
            cognito_client_id=environ.get(COGNITO_CLIENT_ID, ""),
            cors_origins=_origins(environ),
            homeless=tuple(sorted(set(warm).difference(pool.name for pool in pools))),
            unheeded=unheeded,
        )


def _issuer(environ: Mapping[str, str]) -> OidcIssuer | None:
    try:
        return oidc_issuer(environ)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _origins(environ: Mapping[str, str]) -> tuple[str, ...]:
    try:
        return origins_of(environ.get(CORS_ORIGINS, ""))
    except ValueError as error:
        raise SettingsError(f"{CORS_ORIGINS}: {error}") from error


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


def _pools(
    environ: Mapping[str, str], warm: Mapping[str, Sequence[WarmWindow]]
) -> tuple[Pool, ...]:
    pools = tuple(_pool(entry, warm) for entry in _objects(environ, POOLS))
    names = [pool.name for pool in pools]
    if len(set(names)) < len(names):
        raise SettingsError(f"{POOLS}: two pools have the same name")
    return pools


def _pool(entry: Mapping[str, Any], warm: Mapping[str, Sequence[WarmWindow]]) -> Pool:
    try:
        return Pool(
            name=entry["name"],
            accelerator=entry["accelerator"],
            endpoint=entry.get("endpoint", ""),
            runner=entry.get("runnerArn", ""),
            price_per_hour_usd=float(entry.get("pricePerHour", 0)),
            # What a template makes of a list with nothing in it has one name, which is empty.
            models=frozenset(each for each in entry.get("models", ()) if each),
            min_workers=int(entry.get("min", 0)),
            max_workers=int(entry.get("max", 1)),
            idle_after_s=float(entry.get("idleAfterS", 300)),
            startup_s=float(entry.get("startupS", 5)),
            warm=tuple(warm.get(entry["name"], ())),
            extensions=_extensions(entry),
            paid_by_call=bool(entry.get("paidByCall", False)),
            beats=bool(entry.get("beats", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(f"{POOLS}: a pool lacks or misstates {error}") from error


def _extensions(entry: Mapping[str, Any]) -> Extensions | None:
    """Those that a pool's engines have; None where it is not said."""
    named = entry.get("extensions")
    if named is None:
        return None
    if not isinstance(named, list):
        raise TypeError(f"extensions, which are a list, not {named!r}")
    return frozenset(Extension(each) for each in named if each)


def _capacities(environ: Mapping[str, str]) -> dict[str, str]:
    """Of those pools that have one: what is made larger and smaller, by the pool's name."""
    entries = _objects(environ, POOLS)
    return {entry["name"]: entry["capacity"] for entry in entries if entry.get("capacity")}


def _warm_windows(
    environ: Mapping[str, str],
) -> tuple[dict[str, list[WarmWindow]], tuple[str, ...]]:
    """The windows by pool, and what is wrong with those that are left out."""
    windows: dict[str, list[WarmWindow]] = {}
    unheeded: list[str] = []
    try:
        entries = _objects(environ, WARM)
    except SettingsError as error:
        return {}, (str(error),)
    for entry in entries:
        try:
            windows.setdefault(_text(entry, "pool"), []).append(_window(entry))
        except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
            unheeded.append(f"{WARM}: a window lacks or misstates {error}")
    return windows, tuple(unheeded)


def _window(entry: Mapping[str, Any]) -> WarmWindow:
    workers = int(entry.get("workers", 1))
    if workers < 0:
        raise ValueError(f"workers, of which there cannot be {workers}")
    return WarmWindow(
        model=_text(entry, "model"),
        workers=workers,
        days=frozenset(DAYS.index(day) for day in entry.get("days", DAYS)),
        from_minute=_minute(_text(entry, "from", "00:00")),
        until_minute=_minute(_text(entry, "until", "24:00")),
        timezone=ZoneInfo(_text(entry, "timezone", "UTC")).key,
    )


def _text(entry: Mapping[str, Any], key: str, default: str = "") -> str:
    text = entry.get(key, default) if default else entry[key]
    if not isinstance(text, str):
        raise TypeError(f"{key}, which is a text, not {text!r}")
    return text


def _minute(text: str) -> int:
    hours, _, minutes = text.partition(":")
    minute = int(hours) * 60 + int(minutes)
    if not 0 <= minute <= 24 * 60 or int(minutes) >= 60:
        raise ValueError(f"{text!r}, which is no time of a day")
    return minute


def _objects(environ: Mapping[str, str], key: str) -> list[Mapping[str, Any]]:
    entries = _json(environ, key, "[]")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise SettingsError(f"{key} must be a list of objects")
    return entries
