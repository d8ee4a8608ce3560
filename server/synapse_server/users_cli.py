"""`synapse users …`: who logs in to this machine's server with a password.

The password is asked for, or read from standard input: other users of a machine see what commands
are called with.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synapse.domain.access import DEFAULT_TENANT, ORDINARY_SCOPES, Scope
from synapse.domain.errors import SynapseError
from synapse.domain.job import SlaTier
from synapse.domain.user import User, checked_password
from synapse_server.arguments import add_data_dir, add_models_dir, refusal, several, tenant
from synapse_server.config import StartError
from synapse_server.terminal import moment, print_table, tell, tell_of_new_folder

if TYPE_CHECKING:
    from synapse.application.users import Users

Run = Callable[["Users", argparse.Namespace], Awaitable[None]]

NO_PASSWORD = "no password: type it when asked, or pipe it in"
ASKED_FOR_A_PASSWORD = ("add", "passwd")
SCOPES = f"what it is for: {', '.join(Scope)} (default: all but admin)"


def add_users_command(commands: Any, environ: Mapping[str, str]) -> None:
    """Add the command; it sets `run`, which takes the arguments and returns an exit code."""
    users = commands.add_parser("users", help="people who log in with a password")
    actions = users.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = _action(actions, "add", "make a user; asks for the password", _add, environ)
    add.add_argument("name", metavar="NAME")
    add.add_argument("--tenant", type=tenant, default=DEFAULT_TENANT, help="(default: default)")
    add.add_argument("--scopes", type=several(Scope), default=ORDINARY_SCOPES, help=SCOPES)
    add.add_argument("--models", type=several(str), help="the only ones they may use, a,b")
    add_models_dir(add, environ)
    add.add_argument("--tiers", type=several(SlaTier), help="the only ones they may ask for, a,b")
    for name, text, run in (
        ("passwd", "change a user's password; ends their tokens", _passwd),
        ("disable", "shut a user out; ends their tokens", _disable),
        ("enable", "let a user in again", _enable),
    ):
        _action(actions, name, text, run, environ).add_argument("name", metavar="NAME")
    _action(actions, "list", "list the users", _list, environ)


def _action(
    actions: Any, name: str, text: str, run: Run, environ: Mapping[str, str]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    add_data_dir(parser, environ)
    parser.set_defaults(run=lambda arguments: _run(run, arguments))
    return parser


def _run(run: Run, arguments: argparse.Namespace) -> int:
    path = _database_in(arguments.data_dir, may_be_first=arguments.action == "add")

    async def work() -> None:
        async with _opened(path, getattr(arguments, "models_dir", "")) as users:
            await run(users, arguments)

    try:
        if arguments.action in ASKED_FOR_A_PASSWORD:
            # Before the loop starts, which would have Ctrl-C wait until something was typed.
            arguments.password = _new_password()
        asyncio.run(work())
    except SynapseError as error:
        raise StartError(refusal(error)) from error
    return 0


def _database_in(data_dir: Path, *, may_be_first: bool) -> Path:
    """Where a data folder keeps its users.

    Raises:
        StartError: it is none.
    """
    from synapse_server.records import ACCESS

    path = data_dir / ACCESS
    if not may_be_first and not path.exists():
        raise StartError(f"{path}: there are no users yet; is this the server's --data-dir?")
    return path


@contextlib.asynccontextmanager
async def _opened(path: Path, models_dir: str) -> AsyncIterator[Users]:
    """The users that are kept there; the server may run meanwhile.

    Raises:
        StartError: it cannot be used.
    """
    # Loading these takes longer than showing the help of all commands.
    from synapse.adapters.local.access_database import AccessDatabase
    from synapse.adapters.local.failures import StorageError
    from synapse.adapters.local.passwords import Argon2Passwords
    from synapse.adapters.local.users import SqliteUserStore
    from synapse.application.users import Users

    async def models() -> Collection[str]:
        from synapse.adapters.catalogue import CatalogueError, load_catalogue

        try:
            specs = load_catalogue(Path(models_dir) if models_dir else None)
        except CatalogueError as error:
            raise StartError(str(error)) from error
        return [spec.name for spec in specs]

    is_first = not path.exists()
    try:
        database = AccessDatabase.open(path)
    except StorageError as error:
        raise StartError(str(error)) from error
    if is_first:
        tell_of_new_folder(path.parent)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        passwords = Argon2Passwords()
        stack.push_async_callback(passwords.close)
        yield Users(SqliteUserStore(database), passwords, time.time, models)


async def _add(users: Users, arguments: argparse.Namespace) -> None:
    from synapse.application.users import UserRights

    rights = UserRights(arguments.tenant, arguments.scopes, arguments.models, arguments.tiers)
    user = await users.add(arguments.name, arguments.password, rights)
    tell(f"user {user.name} of tenant {user.tenant}: {_may(user)}")


async def _passwd(users: Users, arguments: argparse.Namespace) -> None:
    user = await users.set_password(arguments.name, arguments.password)
    tell(f"user {user.name} has another password; tokens of the one before are good no more")


async def _disable(users: Users, arguments: argparse.Namespace) -> None:
    user = await users.set_disabled(arguments.name, is_disabled=True)
    tell(f"user {user.name} is shut out; their tokens are good no more")


async def _enable(users: Users, arguments: argparse.Namespace) -> None:
    user = await users.set_disabled(arguments.name, is_disabled=False)
    tell(f"user {user.name} may log in again")


async def _list(users: Users, _: argparse.Namespace) -> None:
    rows = [
        (
            user.name,
            "disabled" if user.is_disabled else "active",
            moment(user.created_at),
            user.tenant,
            _may(user),
        )
        for user in await users.all()
    ]
    print_table(("NAME", "STATUS", "CREATED", "TENANT", "MAY"), rows)


def _may(user: User) -> str:
    parts = [f"scopes {','.join(sorted(user.scopes))}"]
    if user.models is not None:
        parts.append(f"models {','.join(sorted(user.models))}")
    if user.tiers is not None:
        parts.append(f"tiers {','.join(sorted(user.tiers))}")
    return "; ".join(parts)


def _new_password() -> str:
    """The password that is typed twice, or the first line of what is piped in.

    Raises:
        StartError: it is not the same twice, or there is none.
        InvalidRequest: it will not do.
    """
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        if not line:
            raise StartError(NO_PASSWORD)
        return checked_password(line.rstrip("\r\n"))
    try:
        password = checked_password(getpass.getpass("Password: "))
        again = getpass.getpass("The same again: ")
    except EOFError as error:
        tell("")  # what follows begins a line of its own
        raise StartError(NO_PASSWORD) from error
    if again != password:
        raise StartError("that was not the same password; nothing was changed")
    return password
