"""What the environment of a Lambda may say, and what of it is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from synapse.domain.extension import Extension
from synapse.domain.pool import Pool, WarmWindow
from synapse.settings import Settings, SettingsError

REQUIRED = {
    "SYNAPSE_JOBS_TABLE": "jobs",
    "SYNAPSE_REGISTRY_TABLE": "registry",
    "SYNAPSE_FILES_TABLE": "files",
    "SYNAPSE_ACCESS_TABLE": "access",
    "SYNAPSE_BLOB_BUCKET": "blobs",
}
SERVICE = "arn:aws:ecs:us-east-1:123456789012:service/workers/gpu"


def loaded(pools: Any = None, warm: Any = None) -> Settings:
    given = {"SYNAPSE_POOLS": pools, "SYNAPSE_WARM": warm}
    texts = {key: json.dumps(value) for key, value in given.items() if value is not None}
    return Settings.load({**REQUIRED, **texts})


def test_without_pools_there_are_none() -> None:
    settings = loaded()

    assert (settings.pools, settings.capacities, settings.scaler) == ((), {}, "")


def test_a_fixed_pool_is_read() -> None:
    entry = {
        "name": "primary",
        "accelerator": "gpu",
        "endpoint": "triton:8001",
        "runnerArn": "arn:run",
        "pricePerHour": 0.8,
    }

    (pool,) = loaded([entry]).pools

    assert pool.is_fixed
    assert (pool.endpoint, pool.runner, pool.price_per_hour_usd) == ("triton:8001", "arn:run", 0.8)
    assert pool.serves("anything")


@pytest.mark.parametrize(
    ("named", "serves"),
    [({}, [True, True]), ({"models": [""]}, [True, True]), ({"models": ["m"]}, [True, False])],
)
def test_a_pool_may_say_which_models_it_has(named: dict[str, Any], serves: list[bool]) -> None:
    (pool,) = loaded([{"name": "primary", "accelerator": "gpu", **named}]).pools

    assert [pool.serves(model) for model in ("m", "n")] == serves


def test_a_pool_in_its_runner_says_how_it_is_paid() -> None:
    entry = {"name": "cpu", "accelerator": "cpu", "endpoint": "127.0.0.1:8001"}

    ways = [{}, {"paidByCall": True}, {"beats": True}]
    pools = [loaded([{**entry, **way}]).pools[0] for way in ways]

    said = [(pool.paid_by_call, pool.beats) for pool in pools]
    assert said == [(False, False), (True, False), (False, True)]


def test_a_pool_that_is_scaled_is_read_with_what_scales_it() -> None:
    entry = {
        "name": "gpu-ecs",
        "accelerator": "gpu",
        "capacity": SERVICE,
        "models": ["m"],
        "max": 4,
        "idleAfterS": 120,
        "startupS": 240,
    }

    settings = loaded([entry])

    assert settings.capacities == {"gpu-ecs": SERVICE}
    assert settings.pools == (
        Pool(
            "gpu-ecs",
            "gpu",
            models=frozenset({"m"}),
            min_workers=0,
            max_workers=4,
            idle_after_s=120,
            startup_s=240,
        ),
    )


@pytest.mark.parametrize(
    ("named", "extensions"),
    [
        ({}, None),
        ({"extensions": ["priority"]}, {Extension.PRIORITY}),
        # What a template makes of a list with nothing in it.
        ({"extensions": [""]}, set()),
    ],
)
def test_a_pool_may_say_which_extensions_its_engines_have(
    named: dict[str, Any], extensions: set[Extension] | None
) -> None:
    (pool,) = loaded([{"name": "gpu", "accelerator": "gpu", **named}]).pools

    assert pool.extensions == extensions


def test_warm_windows_are_the_pools_they_name() -> None:
    window = {
        "pool": "b",
        "model": "m",
        "workers": 2,
        "days": ["mon", "sun"],
        "from": "08:30",
        "until": "24:00",
        "timezone": "Europe/Berlin",
    }
    pools = [{"name": name, "accelerator": "gpu", "max": 2} for name in ("a", "b")]

    a, b = loaded(pools, [window, {"pool": "b", "model": "n"}]).pools

    assert a.warm == ()
    assert b.warm == (
        WarmWindow("m", 2, frozenset({0, 6}), 510, 1440, "Europe/Berlin"),
        WarmWindow("n"),
    )


@pytest.mark.parametrize(
    ("pools", "named"),
    [
        ({}, "list"),
        (["cpu"], "list of objects"),
        ([{"name": "cpu"}], "accelerator"),
        ([{"name": "cpu", "accelerator": "cpu", "max": "many"}], "many"),
        ([{"name": "cpu", "accelerator": "cpu", "min": 3, "max": 2}], "min_workers"),
        ([{"name": "cpu", "accelerator": "cpu"}] * 2, "same name"),
        ([{"name": "cpu", "accelerator": "cpu", "extensions": ["telepathy"]}], "telepathy"),
        ([{"name": "cpu", "accelerator": "cpu", "extensions": "priority"}], "a list"),
    ],
)
def test_pools_that_are_none_are_refused_by_name(pools: Any, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        loaded(pools)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("days", ["noday"], "noday|tuple.index"),
        ("from", "25:00", "25:00"),
        ("until", "12:75", "12:75"),
        ("from", "noon", "noon|invalid literal"),
        ("timezone", "Nowhere/Land", "Nowhere"),
        ("timezone", None, "timezone, which is a text"),
        ("workers", "two", "two"),
        ("workers", float("inf"), "infinity"),
        ("workers", -1, "workers"),
        ("from", 8, "from, which is a text, not 8"),
        ("until", None, "until, which is a text"),
        ("model", ["m"], "model, which is a text"),
        ("pool", None, "pool, which is a text"),
    ],
)
def test_windows_that_are_none_are_left_out_and_named(field: str, value: Any, named: str) -> None:
    good = {"pool": "a", "model": "m"}

    settings = loaded([{"name": "a", "accelerator": "gpu"}], [{**good, field: value}, good])

    assert settings.pools[0].warm == (WarmWindow("m"),)
    (why,) = settings.unheeded
    assert re.search(named, why)


def test_windows_whose_pools_have_no_like_names_keep_nobody_from_working() -> None:
    windows = [{"pool": 3, "model": "m"}, {"pool": "off", "model": "m"}]

    settings = loaded([{"name": "a", "accelerator": "gpu"}], windows)

    assert settings.homeless == ("off",)
    assert len(settings.unheeded) == 1


@pytest.mark.parametrize("text", ["[{'pool': 'a'}]", '{"pool": "a"}', '["a"]'])
def test_what_is_no_list_of_windows_is_none_and_says_so(text: str) -> None:
    settings = Settings.load({**REQUIRED, "SYNAPSE_WARM": text})

    (why,) = settings.unheeded
    assert why.startswith("SYNAPSE_WARM")


def test_a_window_of_a_pool_that_is_not_there_keeps_nobody_from_working() -> None:
    """It was switched off, or the function has no way to it."""
    windows = [{"pool": "b", "model": "m"}, {"pool": "a", "model": "m"}]

    settings = loaded([{"name": "a", "accelerator": "gpu"}], windows)

    assert settings.pools[0].warm == (WarmWindow("m"),)
    assert (settings.homeless, settings.unheeded) == (("b",), ())


def test_without_an_issuer_nobodys_tokens_are_accepted() -> None:
    assert loaded().issuer is None


def test_an_issuer_is_read_with_whom_its_tokens_must_be_for() -> None:
    settings = Settings.load(
        {
            **REQUIRED,
            "SYNAPSE_OIDC_ISSUER": "https://login.example.com",
            "SYNAPSE_COGNITO_CLIENT_ID": "client-1",
        }
    )

    assert settings.issuer is not None
    assert settings.issuer.rules.audiences == {"client-1"}
    assert settings.cognito_client_id == "client-1"


@pytest.mark.parametrize(
    ("key", "value"),
    [("SYNAPSE_OIDC_ISSUER", "http://login.example.com"), ("SYNAPSE_OIDC_AUDIENCE", "")],
)
def test_an_issuer_that_cannot_be_trusted_is_refused(key: str, value: str) -> None:
    given = {
        "SYNAPSE_OIDC_ISSUER": "https://login.example.com",
        "SYNAPSE_OIDC_AUDIENCE": "synapse",
    }

    with pytest.raises(SettingsError, match=key):
        Settings.load({**REQUIRED, **given, key: value})


def test_origins_of_pages_are_read() -> None:
    named = {"SYNAPSE_CORS_ORIGINS": "https://a.example.com, http://localhost:3000"}

    assert loaded().cors_origins == ()
    settings = Settings.load({**REQUIRED, **named})
    assert settings.cors_origins == ("https://a.example.com", "http://localhost:3000")
    assert Settings.load({**REQUIRED, "SYNAPSE_CORS_ORIGINS": "*"}).cors_origins == ("*",)
    with pytest.raises(SettingsError, match="SYNAPSE_CORS_ORIGINS: 'app' must be like"):
        Settings.load({**REQUIRED, "SYNAPSE_CORS_ORIGINS": "app"})
