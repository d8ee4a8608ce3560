"""What a start begins with: the data folder is taken, and its workers are on their way.

A worker takes as long to come up as the rest of the server takes to load. So this loads little, and
what comes after it is loaded while Triton starts (`serve`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from synapse.adapters.catalogue import (
    MODEL_FILE,
    TEMPLATE_FILE,
    CatalogueError,
    load_catalogue,
)
from synapse.adapters.local.database import Database
from synapse.adapters.local.failures import StorageError
from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.domain.model import ModelSpec
from synapse_server.config import ServerConfig, StartError
from synapse_server.local_fleet import LocalFleet

JOBS = "jobs.db"
"""Jobs and all that belongs to them, in the data folder; who has it has the folder."""


class Ground:
    """The database and the workers of one server: `async with Ground(config) as ground:`."""

    def __init__(self, config: ServerConfig) -> None:
        """Open and start nothing.

        Raises:
            StartError: there is no such model, or models and pools do not go together.
        """
        self.config = config
        self.specs = served_models(config)
        self.workers = LocalWorkerRegistry()
        self.fleet = LocalFleet(config, self.specs, self.workers, time.time)
        self.database: Database
        self._opening: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        """Take the folder, and have the workers started in the background.

        Raises:
            StartError: the folder cannot be used.
        """
        self.database = opened_database(self.config)
        self._opening = asyncio.create_task(self.fleet.open(), name="fleet")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the workers, then let go of the folder."""
        self._opening.cancel()
        try:
            await asyncio.gather(self._opening, return_exceptions=True)
            await self.fleet.close()
        finally:
            await self.database.close()

    async def workers_up(self) -> None:
        """Return once every pool has its least number of workers up.

        Raises:
            StartError: one has not, and the reason.
        """
        await asyncio.shield(self._opening)


def served_models(config: ServerConfig) -> tuple[ModelSpec, ...]:
    """What the catalogue says of the models that are served.

    Raises:
        StartError: it cannot be read, or does not know one.
    """
    try:
        catalogue = {spec.name: spec for spec in load_catalogue(config.models_dir)}
        specs = tuple(catalogue[name] for name in config.models)
    except CatalogueError as error:
        raise StartError(str(error)) from error
    except KeyError as error:
        known = ", ".join(sorted(catalogue))
        folder = config.models_dir and config.models_dir / error.args[0]
        if folder and folder.is_dir():
            problem = f": folder {folder} has no {MODEL_FILE}; write one, or choose from: {known}"
        else:
            problem = f" is not in the catalogue; choose from: {known}"
        raise StartError(f"model {error}{problem}") from error
    if config.models_dir is not None:
        _check_templates(config.models_dir, specs)
    return specs


def _check_templates(models_dir: Path, specs: Sequence[ModelSpec]) -> None:
    """Tell of the operator's own what else each who chats would be told, and nobody why."""
    for spec in specs:
        file = models_dir / spec.name / TEMPLATE_FILE
        if spec.chat_template is None or not file.is_file():
            continue
        # Not before there is one: who serves without starts sooner.
        from jinja2 import TemplateSyntaxError

        from synapse.adapters.triton.templates import compiled

        try:
            compiled(spec.chat_template)
        except TemplateSyntaxError as error:
            raise StartError(f"{file}: line {error.lineno}: {error.message}") from error


def opened_database(config: ServerConfig) -> Database:
    """The database of the data folder, which nobody else has from now on.

    Raises:
        StartError: it cannot be used.
    """
    try:
        return Database.open(config.data_dir / JOBS)
    except StorageError as error:
        raise StartError(str(error)) from error
