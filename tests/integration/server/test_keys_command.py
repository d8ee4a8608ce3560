"""`synapse keys` and `synapse tenants`: what they print where, and where they find the keys."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, NoCredentialsError, NoRegionError

from synapse.adapters.aws.keys import DynamoKeyStore
from synapse.adapters.local.access_database import AccessDatabase
from synapse.adapters.local.keys import SqliteKeyStore
from synapse.application.authentication import Authenticator
from synapse.domain.access import Limits, Principal, Scope, Tenant
from synapse.domain.api_key import key_id_of
from synapse.domain.errors import Unauthenticated
from synapse.domain.job import SlaTier
from synapse_server.cli import main
from synapse_server.records import ACCESS
from tests.aws import REGION, Aws, aws
from tests.factories import NOW


class Command:
    """The command over one data folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """What it writes to standard output and to standard error."""
        assert main([*arguments, "--data-dir", str(self.folder)]) == code
        written = self._capsys.readouterr()
        return written.out, written.err

    def key(self, *arguments: str) -> str:
        out, _ = self("keys", "create", "a test", *arguments)
        return out.strip()

    def bearer(self, key: str, now: float = NOW) -> Principal:
        """Whom a server lets in that uses the folder at the same time."""

        async def ask() -> Principal:
            database = AccessDatabase.open(self.folder / "access.db")
            try:
                store = SqliteKeyStore(database)
                return await Authenticator(store, lambda: now).principal(key)
            finally:
                await database.close()

        return asyncio.run(ask())


@pytest.fixture
def synapse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path / "data", capsys)


def test_create_prints_the_key_and_nothing_else(synapse: Command) -> None:
    out, err = synapse("keys", "create", "a laptop")

    [key] = out.splitlines()
    assert key_id_of(key) is not None
    assert synapse.bearer(key).tenant == "default"
    assert "not shown again" in err
    assert key[19:] not in err


def test_the_first_key_of_a_folder_tells_which_server_it_opens(synapse: Command) -> None:
    _, first = synapse("keys", "create", "a laptop")
    _, second = synapse("keys", "create", "a laptop")

    made, key = first.splitlines()
    assert made == (
        f"made a new data folder {synapse.folder}; "
        f"a server uses it that starts with --data-dir {synapse.folder}"
    )
    assert f" of tenant default in {synapse.folder}: scopes " in key
    assert "made a new data folder" not in second
    assert f" of tenant default in {synapse.folder}: scopes " in second


def test_what_a_key_may_is_said_by_options(synapse: Command) -> None:
    key = synapse.key(
        *("--tenant", "acme", "--scopes", "inference, usage", "--models", "echo"),
        *("--tiers", "silver,bronze", "--requests-per-minute", "60", "--monthly-usd", "2.5"),
    )

    assert synapse.bearer(key) == Principal(
        tenant="acme",
        account=key[7:19],
        scopes=frozenset({Scope.INFERENCE, Scope.USAGE}),
        models=frozenset({"echo"}),
        tiers=frozenset({SlaTier.SILVER, SlaTier.BRONZE}),
        limits=Limits(requests_per_minute=60, monthly_usd=2.5),
    )


def test_the_list_shows_every_key_and_no_secret(synapse: Command) -> None:
    keys = [synapse.key(), synapse.key("--expires-in", "30d"), synapse.key("--tenant", "acme")]
    synapse("keys", "revoke", keys[0][7:19])

    out, _ = synapse("keys", "list")

    head, first, second = out.splitlines()
    assert head.split() == ["ID", "STATUS", "CREATED", "NAME", "MAY"]
    assert first.split()[:2] == [keys[0][7:19], "revoked"]
    assert second.split()[:2] == [keys[1][7:19], "active"]
    assert "until 20" in second
    assert keys[2][7:19] in synapse("keys", "list", "--tenant", "acme")[0]
    assert not any(key[19:] in out for key in keys)


def test_a_name_that_an_earlier_version_took_does_not_steer_the_terminal(synapse: Command) -> None:
    synapse.key()
    with sqlite3.connect(synapse.folder / ACCESS) as database:
        [(key_id, doc)] = database.execute("SELECT id, doc FROM keys").fetchall()
        renamed = json.dumps(json.loads(doc) | {"name": "Zoë\x1b[2J\nk2 \u202e"})
        database.execute("UPDATE keys SET doc = ?", [renamed])

    listed, _ = synapse("keys", "list")
    _, told = synapse("keys", "revoke", key_id)

    assert "Zoë\\x1b[2J\\nk2 \\u202e" in listed
    assert len(listed.splitlines()) == 2
    assert told == f"key {key_id} (Zoë\\x1b[2J\\nk2 \\u202e) is revoked\n"


def test_a_revoked_key_opens_nothing(synapse: Command) -> None:
    key = synapse.key()

    out, err = synapse("keys", "revoke", key[7:19])

    assert (out, key[7:19] in err) == ("", True)
    with pytest.raises(Unauthenticated):
        synapse.bearer(key, now=4e9)


def test_a_key_is_revoked_with_its_jobs_if_that_is_asked_for(synapse: Command) -> None:
    key = synapse.key()

    synapse("keys", "revoke", key[7:19])
    out, err = synapse("keys", "revoke", key[7:19], "--cancel-jobs")

    assert out == ""
    assert err.endswith("is revoked, with its jobs\n")


def test_rotate_prints_the_new_key_and_nothing_else(synapse: Command) -> None:
    key = synapse.key()

    out, err = synapse("keys", "rotate", key[7:19], "--grace", "0s")

    [new] = out.splitlines()
    assert (new[:19], new != key) == (key[:19], True)
    assert "has a new secret" in err
    assert synapse.bearer(new, now=4e9).account == key[7:19]
    with pytest.raises(Unauthenticated):
        synapse.bearer(key, now=4e9)


def test_a_tenant_s_limits_are_set_all_at_once(synapse: Command) -> None:
    synapse("tenants", "set", "acme", "--tokens-per-minute", "1000", "--monthly-usd", "5")
    _, err = synapse("tenants", "set", "acme", "--concurrent-jobs", "3")

    told = "tenant acme: concurrent_jobs 3; no longer: tokens_per_minute 1000, monthly_usd 5\n"
    assert err == told
    assert synapse("tenants", "list")[0].splitlines()[1].split(maxsplit=1) == [
        "acme",
        "concurrent_jobs 3",
    ]
    key = synapse.key("--tenant", "acme")
    assert synapse.bearer(key).tenant_limits == Limits(concurrent_jobs=3)


def test_a_limit_that_is_changed_is_not_told_as_lost(synapse: Command) -> None:
    synapse("tenants", "set", "acme", "--monthly-usd", "5")
    _, err = synapse("tenants", "set", "acme", "--monthly-usd", "6")

    assert err == "tenant acme: monthly_usd 6\n"


def test_all_limits_are_taken_away_only_if_that_is_said(synapse: Command) -> None:
    synapse("tenants", "set", "acme", "--monthly-usd", "5")

    for arguments in ((), ("--none", "--monthly-usd", "6")):
        _, err = synapse("tenants", "set", "acme", *arguments, code=1)
        assert "or --none alone to take all away" in err
    assert "monthly_usd 5" in synapse("tenants", "list")[0]

    _, err = synapse("tenants", "set", "acme", "--none")
    assert err == "tenant acme: no limits; no longer: monthly_usd 5\n"


def test_limits_are_shown_to_the_last_digit(synapse: Command) -> None:
    synapse.key("--requests-per-minute", "1234567", "--monthly-usd", "1234567.25")

    out, _ = synapse("keys", "list")

    assert out.rstrip().endswith("requests_per_minute 1234567, monthly_usd 1234567.25")


def test_the_most_that_a_limit_may_be_is_what_the_api_takes(synapse: Command) -> None:
    _, err = synapse("tenants", "set", "acme", "--monthly-usd", "1e12")

    assert err.endswith("\ntenant acme: monthly_usd 1000000000000\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "x", "--scopes", "root"), "'root': choose from inference, batches, usage"),
        (("create", "x", "--scopes", ","), "names nothing"),
        (("create", "x", "--tiers", "tin"), "'tin': choose from gold, silver, bronze"),
        (("create", "x", "--expires-in", "soon"), "must be like 90s, 15m, 12h or 30d"),
        (("create", "x", "--expires-in", "4000d"), "at most 3650d"),
        (("create", "x", "--monthly-usd", "0"), "must be above 0"),
        (("create", "x", "--monthly-usd", "1e300"), "at most 1000000000000"),
        (("create", "x", "--monthly-usd", "nan"), "must be above 0"),
        (("create", "x", "--requests-per-minute", "1000000000001"), "at most 1000000000000"),
        (("create", "x", "--expires-in", "0s"), "must be above 0"),
        (("create", "x", "--concurrent-jobs", "1.5"), "must be a number"),
        (("create", "x", "--tenant", "a/b"), "'a/b': must be letters"),
        (("create", ""), "must have 1 to 100 characters"),
        (("create", "x\x1b[2J"), "all of which can be shown in a line"),
        (("rotate", "x", "--grace", "31d"), "at most 30d"),
        (("create", "x", "--stack", "s", "--data-dir", "d"), "not allowed with"),
    ],
)
def test_a_bad_argument_is_named(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["keys", *arguments])

    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "x", "--models", "gpt-9"), "'gpt-9' not served here; choose from:"),
        (("revoke", "nothing00000"), "there is no key 'nothing00000'"),
        (("rotate", "nothing00000"), "there is no key 'nothing00000'"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    synapse: Command, arguments: tuple[str, ...], told: str
) -> None:
    synapse.key()

    out, err = synapse("keys", *arguments, code=1)

    assert out == ""
    assert err.startswith("synapse: ")
    assert told in err
    assert len(err.splitlines()) == 1
    assert ("--models-dir" in err) == ("--models" in arguments)


@pytest.mark.parametrize("command", ["keys", "users"])
def test_models_of_one_s_own_are_those_that_the_server_is_told_of(
    synapse: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    entry = json.loads((resources.files("synapse") / "catalogue/echo/model.json").read_text())
    folder = tmp_path / "models" / "my-llm"
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps(entry | {"name": "my-llm"}))
    monkeypatch.setenv("SYNAPSE_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery"))

    synapse(command, "create" if command == "keys" else "add", "ada", "--models", "my-llm")

    assert "models my-llm" in synapse(command, "list")[0]


@pytest.mark.parametrize("arguments", [("list",), ("revoke", "x"), ("rotate", "x")])
def test_a_folder_without_keys_is_probably_the_wrong_one(
    synapse: Command, arguments: tuple[str, ...]
) -> None:
    _, err = synapse("keys", *arguments, code=1)

    assert "is this the server's --data-dir?" in err
    assert not synapse.folder.exists()


class Formation:
    """CloudFormation, of which one stack is known."""

    def __init__(self, outputs: dict[str, str]) -> None:
        self._outputs = outputs

    def describe_stacks(self, *, StackName: str) -> dict[str, Any]:
        if StackName != "mine":
            message = f"Stack with id {StackName} does not exist"
            answer: Any = {"Error": {"Code": "ValidationError", "Message": message}}
            raise ClientError(answer, "DescribeStacks")
        outputs = [{"OutputKey": k, "OutputValue": v} for k, v in self._outputs.items()]
        return {"Stacks": [{"Outputs": outputs}]}


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    outputs = {"AccessTableName": "access"}
    client = boto3.client

    def made(service: str, **options: Any) -> Any:
        formation = service == "cloudformation"
        return Formation(outputs) if formation else client(service, **options)  # type: ignore[call-overload]

    with aws() as cloud:
        monkeypatch.setattr(boto3, "client", made)
        yield cloud


def test_the_keys_of_a_stack_are_in_the_table_that_it_names(
    cloud: Aws, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--stack", "mine", "--region", REGION)

    assert main(["keys", "create", "a test", *place]) == 0
    written = capsys.readouterr()
    key = written.out.strip()
    assert " of tenant default in stack mine: scopes " in written.err
    assert main(["tenants", "set", "default", "--monthly-usd", "5", *place]) == 0

    store = DynamoKeyStore(cloud.dynamodb, cloud.access_table)
    bearer = asyncio.run(Authenticator(store, lambda: NOW).principal(key))
    assert bearer.tenant_limits == Limits(monthly_usd=5.0)
    assert asyncio.run(store.tenants()) == [Tenant("default", Limits(monthly_usd=5.0))]
    assert main(["keys", "list", *place]) == 0
    assert key[7:19] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "told"), [(NoCredentialsError(), "`aws configure`"), (NoRegionError(), "--region")]
)
def test_who_has_not_said_who_they_are_to_aws_is_told_how(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, told: str
) -> None:
    def client(service: str, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(boto3, "client", client)

    assert main(["keys", "list", "--stack", "mine"]) == 1

    assert told in capsys.readouterr().err


def test_a_stack_that_is_not_there_is_named(cloud: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "list", "--stack", "other", "--region", REGION]) == 1

    assert "synapse: stack 'other': " in capsys.readouterr().err
