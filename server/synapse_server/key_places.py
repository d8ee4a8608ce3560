"""Where the `synapse` command finds the keys: a data folder, or the table of an AWS stack."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from synapse.adapters.catalogue import CatalogueError, load_catalogue
from synapse.adapters.local.access_database import AccessDatabase
from synapse.adapters.local.failures import StorageError
from synapse.adapters.local.keys import SqliteKeyStore
from synapse.application.keys import Keys
from synapse.domain.model import ModelSpec
from synapse.ports import KeyStore
from synapse_server.config import StartError
from synapse_server.records import ACCESS
from synapse_server.terminal import tell_of_new_folder

MAY_BE_FIRST = ("create", "set")
"""What is done before the server's first start, too."""

TABLE_OUTPUT = "AccessTableName"


@contextlib.asynccontextmanager
async def opened_keys(arguments: argparse.Namespace) -> AsyncIterator[Keys]:
    """The keys of the place that the arguments name; the server may run meanwhile.

    Raises:
        StartError: there is no such place, or it cannot be used.
    """

    async def models() -> Sequence[ModelSpec]:
        try:
            return load_catalogue(Path(arguments.models_dir) if arguments.models_dir else None)
        except CatalogueError as error:
            raise StartError(str(error)) from error

    async with _store(arguments) as store:
        yield Keys(store, models, time.time)


@contextlib.asynccontextmanager
async def _store(arguments: argparse.Namespace) -> AsyncIterator[KeyStore]:
    if arguments.stack:
        yield _of_stack(arguments.stack, arguments.region)
        return
    path: Path = arguments.data_dir / ACCESS
    is_first = not path.exists()
    if is_first and arguments.action not in MAY_BE_FIRST:
        raise StartError(f"{path}: there are no keys yet; is this the server's --data-dir?")
    try:
        database = AccessDatabase.open(path)
    except StorageError as error:
        raise StartError(str(error)) from error
    if is_first:
        tell_of_new_folder(arguments.data_dir)
    try:
        yield SqliteKeyStore(database)
    finally:
        await database.close()


def _of_stack(stack: str, region: str | None) -> KeyStore:
    # Loading these takes longer than all that is done with a data folder.
    import boto3
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        NoRegionError,
    )

    from synapse.adapters.aws.keys import DynamoKeyStore

    try:
        formation: Any = boto3.client("cloudformation", region_name=region)
        [described] = formation.describe_stacks(StackName=stack)["Stacks"]
        outputs = {each["OutputKey"]: each["OutputValue"] for each in described["Outputs"]}
        return DynamoKeyStore(boto3.client("dynamodb", region_name=region), outputs[TABLE_OUTPUT])
    except NoCredentialsError as error:
        remedy = "sign in first: `aws configure`, `aws sso login`, or AWS_PROFILE"
        raise StartError(f"stack {stack!r}: there are no credentials for AWS; {remedy}") from error
    except NoRegionError as error:
        raise StartError(f"stack {stack!r}: in which region is it? Give --region") from error
    except (BotoCoreError, ClientError) as error:
        raise StartError(f"stack {stack!r}: {error}") from error
    except KeyError as error:
        raise StartError(f"stack {stack!r} has no output {TABLE_OUTPUT}: deploy it anew") from error
