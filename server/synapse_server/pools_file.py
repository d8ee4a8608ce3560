"""The pools of one machine: those of a `pools.toml`, or the one there is without it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from synapse.domain.extension import Extension, Extensions
from synapse.domain.pool import Accelerator, Pool, WarmWindow
from synapse_server.config import FleetConfig, FleetTimes, LocalPool, StartError
from synapse_server.toml_table import Table
from synapse_worker.ports import MAX_PORT

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
"""Pool names become folders, and parts of workers' ids."""

ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+):(\d{1,5})")
TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
STARTED_HERE = (
    "min_workers",
    "max_workers",
    "idle_after_s",
    "startup_s",
    "model_parameters",
    "models_at_start",
    "memory_budget_mb",
)
"""What has no meaning for a worker that runs elsewhere."""


def one_pool(engine_url: str | None = None) -> FleetConfig:
    """The fleet of a server that was told of no pools: one worker, or the engine at that address.

    Raises:
        StartError: that is no address.
    """
    if engine_url is not None and not _is_address(engine_url):
        raise StartError(f"--engine-url: must be host:port, not {engine_url!r}")
    pool = Pool("local", Accelerator.CPU, endpoint=engine_url or "")
    return FleetConfig((LocalPool(pool),))


def read_pools(path: Path) -> FleetConfig:
    """The fleet that a file declares.

    Raises:
        StartError: it cannot be read, or something in it is wrong; the message names the key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartError(f"--pools: cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"--pools: {path} is not TOML: {error}") from error
    file = Table(values, str(path))
    pools = tuple(
        _pool(Table(each, _where(path, each, number)))
        for number, each in enumerate(file.tables("pool"), 1)
    )
    times = _times(Table(file.table("times"), f"{path}: [times]"))
    file.done()
    if not pools:
        raise StartError(f"{path}: declares no pool; write at least one [[pool]]")
    _check_names(path, [each.pool.name for each in pools])
    return FleetConfig(pools, times)


def _where(path: Path, values: Mapping[str, Any], number: int) -> str:
    name = values.get("name")
    return f'{path}: [[pool]] "{name}"' if isinstance(name, str) else f"{path}: [[pool]] {number}"


def _pool(table: Table) -> LocalPool:
    name = table.text("name")
    if not NAME.fullmatch(name):
        raise table.error("name", "must be 1 to 40 of a-z, 0-9 and dash, starting with no dash")
    accelerator = table.text("accelerator", Accelerator.CPU)
    if accelerator not in list(Accelerator):
        raise table.error("accelerator", f"must be one of {', '.join(Accelerator)}")
    price = table.number("price_per_hour_usd", 0.0)
    models = frozenset(table.texts("models") or ())
    endpoint = _endpoint(table)
    least = table.whole("min_workers", 1)
    most = table.whole("max_workers", max(1, least), least=1)
    if least > most:
        raise table.error("min_workers", f"must not be more than max_workers ({most}): {least}")
    pool = Pool(
        name=name,
        accelerator=accelerator,
        endpoint=endpoint,
        price_per_hour_usd=price,
        models=models,
        min_workers=least,
        max_workers=most,
        idle_after_s=table.number("idle_after_s", 300.0),
        startup_s=table.number("startup_s", 5.0),
        slots=_slots(table, models),
        warm=tuple(_warm(table, each, models, most) for each in table.tables("warm")),
        loads_on_demand="memory_budget_mb" in table or "models_at_start" in table,
        extensions=_extensions(table),
    )
    parameters = _parameters(table, models)
    at_start, budget_mb = _on_demand(table, pool)
    table.done()
    return LocalPool(pool, parameters, at_start, budget_mb)


def _on_demand(table: Table, pool: Pool) -> tuple[frozenset[str] | None, int | None]:
    """What a worker starts with, and how much it may hold; with a budget it starts with nothing."""
    if not pool.loads_on_demand:
        return None, None
    at_start = frozenset(table.texts("models_at_start", least=0) or ())
    for model in sorted(at_start):
        if not pool.serves(model):
            raise table.error("models_at_start", f"{model!r} is none of the pool's models")
    budget_mb = table.whole("memory_budget_mb", 0, least=1) if "memory_budget_mb" in table else None
    return at_start, budget_mb


def _extensions(table: Table) -> Extensions | None:
    named = table.texts("extensions", least=0)
    for each in named or ():
        if each not in set(Extension):
            raise table.error("extensions", f"{each!r} is none of {', '.join(Extension)}")
    return None if named is None else frozenset(Extension(each) for each in named)


def _endpoint(table: Table) -> str:
    if "engine_url" not in table:
        return table.text("engine_url", "")
    for key in STARTED_HERE:
        if key in table:
            raise table.error(key, "has no meaning beside engine_url: its worker runs elsewhere")
    endpoint = table.text("engine_url")
    if not _is_address(endpoint):
        raise table.error("engine_url", f"must be host:port of a gRPC service, not {endpoint!r}")
    return endpoint


def _is_address(text: str) -> bool:
    found = ADDRESS.fullmatch(text)
    return found is not None and 0 < int(found[2]) <= MAX_PORT


def _slots(table: Table, models: frozenset[str]) -> Mapping[str, int]:
    slots = dict(table.table("slots"))
    for model, count in slots.items():
        if models and model not in models:
            raise table.error(f"slots.{model}", "is none of the pool's models")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise table.error(f"slots.{model}", f"must be a whole number from 1, not {count!r}")
    return slots


def _parameters(table: Table, models: frozenset[str]) -> Mapping[str, Mapping[str, str]]:
    parameters: dict[str, dict[str, str]] = {}
    for model, values in table.table("model_parameters").items():
        where = f"model_parameters.{model}"
        if models and model not in models:
            raise table.error(where, f"is none of the pool's models: {', '.join(sorted(models))}")
        if not isinstance(values, dict):
            raise table.error(where, "must be a table of strings")
        for key, value in values.items():
            if not isinstance(value, str):
                raise table.error(f"{where}.{key}", f'must be a string: "{value}"')
        parameters[model] = dict(values)
    return parameters


def _warm(pool: Table, values: Mapping[str, Any], models: frozenset[str], most: int) -> WarmWindow:
    table = Table(values, f"{pool.where}: [[pool.warm]]")
    model = table.text("model")
    if models and model not in models:
        raise table.error("model", f"{model!r} is none of the pool's: {', '.join(sorted(models))}")
    days = table.texts("days") or DAYS
    for day in days:
        if day not in DAYS:
            raise table.error("days", f"{day!r} is no day; there are {', '.join(DAYS)}")
    timezone = table.text("timezone", "UTC")
    try:
        ZoneInfo(timezone)
    except (KeyError, ValueError, OSError) as error:
        raise table.error("timezone", f"{timezone!r} is not known here") from error
    workers = table.whole("workers", 1, least=1)
    if workers > most:
        raise table.error("workers", f"must not be more than max_workers ({most}): {workers}")
    window = WarmWindow(
        model=model,
        workers=workers,
        days=frozenset(DAYS.index(day) for day in days),
        from_minute=_minute(table, "from", "00:00"),
        until_minute=_minute(table, "until", "24:00"),
        timezone=timezone,
    )
    table.done()
    return window


def _minute(table: Table, key: str, default: str) -> int:
    value = table.text(key, default)
    if not TIME.fullmatch(value):
        raise table.error(key, f'must be a time such as "08:30", at most "24:00", not {value!r}')
    hours, minutes = value.split(":")
    return int(hours) * 60 + int(minutes)


def _times(table: Table) -> FleetTimes:
    defaults = FleetTimes()
    times = FleetTimes(
        **{
            key: table.number(key, getattr(defaults, key), least=0.01)
            for key in FleetTimes.__dataclass_fields__
        }
    )
    table.done()
    if times.beat_every_s * 2 > times.lease_s:
        raise table.error(
            "lease_s", f"must be at least twice beat_every_s ({times.beat_every_s:g} s)"
        )
    return times


def _check_names(path: Path, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise StartError(f"{path}: two pools are called {twice!r}; give one another name")
