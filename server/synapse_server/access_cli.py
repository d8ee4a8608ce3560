"""`synapse keys …` and `synapse tenants …`: who may call, on this machine or in an AWS stack.

What is to be kept, a key, goes to standard output and nothing else does, so that
`export OPENAI_API_KEY=$(synapse keys create NAME)` works. Whoever can write the data folder, or the
stack's table, is the operator.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from synapse.domain.access import ANYONE, NO_LIMITS, ORDINARY_SCOPES, Limits, Scope, Tenant
from synapse.domain.api_key import GRACE_S, MAX_GRACE_S, MAX_LIFE_S, ApiKey
from synapse.domain.errors import SynapseError
from synapse.domain.job import SlaTier
from synapse.domain.rights import Rights
from synapse_server.arguments import (
    add_data_dir,
    add_models_dir,
    duration,
    limit,
    name,
    refusal,
    several,
    tenant,
)
from synapse_server.config import StartError
from synapse_server.terminal import moment, print_table, shown, tell, write_no_more

if TYPE_CHECKING:
    # Loaded by those commands that need it: all the others, and the help, are there sooner.
    from synapse.application.keys import Keys, NewKey

Run = Callable[["Keys", argparse.Namespace], Awaitable[None]]

SCOPES = f"what it is for: {', '.join(Scope)} (default: all but admin)"


def add_access_commands(commands: Any, environ: Mapping[str, str]) -> None:
    """Add the commands; each sets `run`, which takes the arguments and returns an exit code."""
    keys = commands.add_parser("keys", help="make, list, revoke and rotate API keys")
    of_keys = keys.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = _action(of_keys, "create", "make a key; prints it, and nothing else", _create, environ)
    create.add_argument("name", metavar="NAME", help="tells you whose key it is", type=name)
    create.add_argument("--tenant", type=tenant, help="whose it is (default: default)")
    create.add_argument("--scopes", type=several(Scope), default=ORDINARY_SCOPES, help=SCOPES)
    create.add_argument("--models", type=several(str), help="the only ones it may use, a,b")
    create.add_argument("--tiers", type=several(SlaTier), help="the only ones it may ask for, a,b")
    life = duration(MAX_LIFE_S, may_be_none=False)
    create.add_argument("--expires-in", type=life, help="e.g. 30d or 12h")
    _limit_options(create)
    listed = _action(of_keys, "list", "list the keys of a tenant", _list, environ)
    listed.add_argument("--tenant", type=tenant, help="whose (default: default)")
    revoke = _action(of_keys, "revoke", "end a key: it opens nothing any more", _revoke, environ)
    revoke.add_argument("id", metavar="ID", help="as `list` shows it")
    revoke.add_argument(
        "--cancel-jobs",
        action="store_true",
        help="what was begun with it and does not run yet is not run any more",
    )
    rotate = _action(of_keys, "rotate", "give a key a new secret; prints it", _rotate, environ)
    rotate.add_argument("id", metavar="ID", help="as `list` shows it")
    rotate.add_argument(
        "--grace",
        type=duration(MAX_GRACE_S),
        default=GRACE_S,
        help="how long the secret it had is good yet (default: 24h)",
    )
    tenants = commands.add_parser("tenants", help="what the keys of a tenant may use together")
    of_tenants = tenants.add_subparsers(dest="action", metavar="ACTION", required=True)
    _action(of_tenants, "list", "list the tenants that have limits", _list_tenants, environ)
    text = "set a tenant's limits, all at once: those not named are taken away"
    set_ = _action(of_tenants, "set", text, _describe, environ)
    set_.add_argument("name", metavar="NAME", type=tenant)
    _limit_options(set_)
    set_.add_argument("--none", action="store_true", help="take all limits away")
    set_.set_defaults(run=_set)


def _action(
    actions: Any, name: str, text: str, run: Run, environ: Mapping[str, str]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    place = parser.add_mutually_exclusive_group()
    add_data_dir(place, environ)
    place.add_argument("--stack", help="name of a CloudFormation stack, instead of a data folder")
    parser.add_argument("--region", help="of the stack, where the environment does not say")
    add_models_dir(parser, environ)
    parser.set_defaults(run=lambda arguments: _run(run, arguments))
    return parser


def _run(run: Run, arguments: argparse.Namespace) -> int:
    from synapse_server.key_places import opened_keys

    async def work() -> None:
        async with opened_keys(arguments) as keys:
            await run(keys, arguments)

    try:
        asyncio.run(work())
    except SynapseError as error:
        raise StartError(refusal(error)) from error
    return 0


async def _create(keys: Keys, arguments: argparse.Namespace) -> None:
    from synapse.application.keys import KeyWish

    rights = Rights(arguments.scopes, arguments.models, arguments.tiers, _limits_of(arguments))
    wish = KeyWish(arguments.name, rights, arguments.tenant, arguments.expires_in)
    made = await keys.create(ANYONE, wish)
    whose = f"key {made.key.id} of tenant {made.key.tenant} in {_place(arguments)}"
    _show(made, f"{whose}: {_rights_text(made.key)}")


async def _rotate(keys: Keys, arguments: argparse.Namespace) -> None:
    made = await keys.rotate(ANYONE, arguments.id, arguments.grace)
    until = moment(made.key.previous_until)
    _show(made, f"key {made.key.id} has a new secret; the one before is good until {until}")


def _place(arguments: argparse.Namespace) -> str:
    return f"stack {arguments.stack}" if arguments.stack else str(arguments.data_dir.absolute())


def _show(made: NewKey, explanation: str) -> None:
    tell(f"{explanation}; it is not shown again")
    try:
        print(made.text, flush=True)  # noqa: T201 - the command's own answer
    except OSError as error:
        write_no_more()
        raise StartError(
            f"nobody has seen key {made.key.id}: it could not be written "
            f"({error.strerror}); `keys rotate {made.key.id}` makes it another secret"
        ) from error


async def _list(keys: Keys, arguments: argparse.Namespace) -> None:
    rows = [
        (key.id, keys.status(key), moment(key.created_at), key.name, _rights_text(key))
        for key in await keys.list(ANYONE, arguments.tenant)
    ]
    print_table(("ID", "STATUS", "CREATED", "NAME", "MAY"), rows)


async def _revoke(keys: Keys, arguments: argparse.Namespace) -> None:
    end = keys.stop if arguments.cancel_jobs else keys.revoke
    key = await end(ANYONE, arguments.id)
    tell(f"key {key.id} ({shown(key.name)}) is revoked{', with its jobs' if key.stops_at else ''}")


async def _list_tenants(keys: Keys, arguments: argparse.Namespace) -> None:
    found = await keys.tenants(ANYONE)
    rows = [(tenant.name, _limits_text(tenant.limits) or "no limits") for tenant in found]
    print_table(("NAME", "LIMITS"), rows)


def _set(arguments: argparse.Namespace) -> int:
    if arguments.none != (_limits_of(arguments) == NO_LIMITS):
        raise StartError(
            f"name all limits that {arguments.name} is to have, or --none alone to take all away"
        )
    return _run(_describe, arguments)


async def _describe(keys: Keys, arguments: argparse.Namespace) -> None:
    before = {tenant.name: tenant.limits for tenant in await keys.tenants(ANYONE)}
    tenant = await keys.describe(ANYONE, Tenant(arguments.name, _limits_of(arguments)))
    lost = _limits_text(_those_gone(before.get(tenant.name, NO_LIMITS), tenant.limits))
    gone = f"; no longer: {lost}" if lost else ""
    tell(f"tenant {tenant.name}: {_limits_text(tenant.limits) or 'no limits'}{gone}")


def _those_gone(before: Limits, now: Limits) -> Limits:
    kept = {field.name for field in fields(Limits) if getattr(now, field.name) is not None}
    return replace(before, **dict.fromkeys(kept))


def _limit_options(parser: argparse.ArgumentParser) -> None:
    for field in fields(Limits):
        kind = float if field.name == "monthly_usd" else int
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=limit(kind), metavar="N")


def _limits_of(arguments: argparse.Namespace) -> Limits:
    return Limits(**{field.name: getattr(arguments, field.name) for field in fields(Limits)})


def _rights_text(key: ApiKey) -> str:
    parts = [f"scopes {','.join(sorted(key.scopes))}"]
    if key.models is not None:
        parts.append(f"models {','.join(sorted(key.models))}")
    if key.tiers is not None:
        parts.append(f"tiers {','.join(sorted(key.tiers))}")
    if key.expires_at is not None:
        parts.append(f"until {moment(key.expires_at)}")
    return "; ".join(part for part in (*parts, _limits_text(key.limits)) if part)


def _limits_text(limits: Limits) -> str:
    set_ = ((field.name, getattr(limits, field.name)) for field in fields(Limits))
    # To the last digit: what is shown is what is compared with.
    shown = ((name, str(value).removesuffix(".0")) for name, value in set_ if value is not None)
    return ", ".join(f"{name} {value}" for name, value in shown)
