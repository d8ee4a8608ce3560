"""pools.toml: what it may say, and that whatever is wrong is said with its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from synapse.domain.extension import Extension
from synapse.domain.pool import Pool, WarmWindow
from synapse_server.config import FleetConfig, FleetTimes, StartError
from synapse_server.pools_file import one_pool, read_pools

DOCS = Path(__file__).parents[3] / "docs"
EXAMPLE = DOCS / "examples/pools.toml"


def _read(tmp_path: Path, text: str) -> FleetConfig:
    file = tmp_path / "pools.toml"
    file.write_text(text, encoding="utf-8")
    return read_pools(file)


def test_the_example_in_the_documentation_is_read_as_it_says() -> None:
    fleet = read_pools(EXAMPLE)

    steady, burst = fleet.pools
    assert steady.pool == Pool(
        "steady", "cpu", price_per_hour_usd=0.05, models=frozenset({"all-minilm-l6-v2", "echo"})
    )
    assert burst.pool == Pool(
        "burst",
        "cpu",
        price_per_hour_usd=0.2,
        models=frozenset({"smollm2-135m-instruct", "echo"}),
        min_workers=0,
        max_workers=2,
        idle_after_s=120,
        startup_s=8,
        slots={"echo": 16},
        warm=(
            WarmWindow(
                "smollm2-135m-instruct",
                workers=1,
                days=frozenset(range(5)),
                from_minute=8 * 60,
                until_minute=18 * 60 + 30,
                timezone="Europe/Berlin",
            ),
        ),
    )
    assert burst.model_parameters == {"echo": {"slots": "16", "delay_ms": "20"}}


def test_the_documentation_shows_the_example_as_it_is() -> None:
    shown = (DOCS / "operations.md").read_text(encoding="utf-8")

    assert f"```toml\n{EXAMPLE.read_text(encoding='utf-8').strip()}\n```" in shown


def test_the_example_names_the_default_clocks() -> None:
    assert read_pools(EXAMPLE).times == FleetTimes()


def test_a_pool_needs_no_more_than_a_name(tmp_path: Path) -> None:
    [local] = _read(tmp_path, '[[pool]]\nname = "a"').pools

    assert local.pool == Pool("a", "cpu")
    assert local.model_parameters == {}


@pytest.mark.parametrize(
    ("line", "extensions"),
    [
        ("", None),
        ("extensions = []", frozenset()),
        ('extensions = ["priority"]', frozenset({Extension.PRIORITY})),
    ],
)
def test_a_pool_may_say_which_extensions_its_engines_have(
    tmp_path: Path, line: str, extensions: frozenset[Extension] | None
) -> None:
    [local] = _read(tmp_path, f'[[pool]]\nname = "a"\n{line}').pools

    assert local.pool.extensions == extensions


@pytest.mark.parametrize("address", ["box:8001", "10.0.0.7:8001", "[::1]:8001"])
def test_a_pool_may_be_a_worker_that_runs_elsewhere(tmp_path: Path, address: str) -> None:
    text = f'[[pool]]\nname = "a"\naccelerator = "gpu"\nengine_url = "{address}"'

    [local] = _read(tmp_path, text).pools

    assert local.pool.is_fixed
    assert local.pool.endpoint == address


def test_without_a_file_there_is_one_pool_with_one_worker() -> None:
    [local] = one_pool().pools

    assert local.pool == Pool("local", "cpu")
    assert (local.pool.min_workers, local.pool.max_workers, local.pool.is_fixed) == (1, 1, False)


def test_an_engine_that_runs_already_is_a_pool_of_its_own() -> None:
    [local] = one_pool("127.0.0.1:8001").pools

    assert local.pool.is_fixed
    with pytest.raises(StartError, match="--engine-url: must be host:port"):
        one_pool("http://127.0.0.1:8001/")


A = '[[pool]]\nname = "a"\n'
WARM = f'{A}[[pool.warm]]\nmodel = "m"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "declares no pool"),
        ("[[pool]", "is not TOML"),
        ("[pool]\nname = 'a'", "pool: must be a list"),
        ("pool = ['a']", "pool: must be written as [[pool]] tables"),
        ("[[pool]]", "[[pool]] 1: name: is missing; give a string"),
        ("[[pool]]\nname = 7", "name: must be a string, not 7"),
        ("[[pool]]\nname = ''", "name: must not be empty"),
        ("[[pool]]\nname = 'A b'", "name: must be 1 to 40 of a-z"),
        (A + A, "two pools are called 'a'"),
        (A + "acelerator = 'gpu'", "acelerator: is not known here; there are name, accelerator"),
        (A + "accelerator = 'tpu'", "accelerator: must be one of cpu, gpu, neuron"),
        (A + "price_per_hour_usd = -1", "price_per_hour_usd: must be at least 0, not -1"),
        (A + "price_per_hour_usd = 'x'", "price_per_hour_usd: must be a number"),
        (A + "price_per_hour_usd = nan", "price_per_hour_usd: must be at least 0, not nan"),
        (A + "models = []", "models: must be a list of one or more strings"),
        (A + "models = ['x', 'x']", "models: must name none twice"),
        (A + "models = 'x'", "models: must be a list, not 'x'"),
        (A + "min_workers = -1", "min_workers: must be at least 0, not -1"),
        (A + "min_workers = true", "min_workers: must be a whole number, not True"),
        (A + "max_workers = 0", "max_workers: must be at least 1, not 0"),
        (
            A + "min_workers = 3\nmax_workers = 2",
            "min_workers: must not be more than max_workers (2): 3",
        ),
        (A + "idle_after_s = inf", "idle_after_s: must be at least 0"),
        (
            A + "extensions = ['telepathy']",
            "extensions: 'telepathy' is none of cached_tokens, prompt_token_ids, priority",
        ),
        (A + "extensions = ['']", "extensions: must be a list of strings"),
        (A + "engine_url = '::1:8001'", "engine_url: must be host:port"),
        (A + "engine_url = 'box:99999'", "engine_url: must be host:port"),
        (A + "engine_url = 'box'", "engine_url: must be host:port"),
        (
            A + "engine_url = 'box:1'\nmax_workers = 2",
            "max_workers: has no meaning beside engine_url",
        ),
        (
            A + "models = ['m']\n[pool.model_parameters.x]\na = '1'",
            "model_parameters.x: is none of the pool's models: m",
        ),
        (
            A + "[pool.model_parameters.x]\na = 1",
            'model_parameters.x.a: must be a string: "1"',
        ),
        (A + "[pool.slots]\nx = 0", "slots.x: must be a whole number from 1, not 0"),
        (A + "[[pool.warm]]", "[[pool.warm]]: model: is missing"),
        (WARM + "workers = 0", "workers: must be at least 1, not 0"),
        (WARM + "days = ['monday']", "days: 'monday' is no day; there are mon, tue"),
        (WARM + "from = '8'", 'from: must be a time such as "08:30"'),
        (WARM + "until = '24:30'", "until: must be a time"),
        (WARM + "timezone = 'Europe/Atlantis'", "timezone: 'Europe/Atlantis' is not known here"),
        (WARM + "workers = 2", "[[pool.warm]]: workers: must not be more than max_workers (1): 2"),
        (WARM + "x = 1", "[[pool.warm]]: x: is not known here"),
        (A + "[times]\nlease_s = 0", "[times]: lease_s: must be at least 0.01"),
        (
            A + "[times]\nlease_s = 3\nbeat_every_s = 2",
            "lease_s: must be at least twice beat_every_s (2 s)",
        ),
        ("pools = 1\n" + A, "pools: is not known here; there are pool, times"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_key(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(StartError) as raised:
        _read(tmp_path, text)

    message = str(raised.value)
    assert said in message
    assert "\n" not in message
    assert "pools.toml" in message


def test_whatever_a_pool_may_say_is_among_the_keys_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(StartError) as raised:
        _read(tmp_path, A + "nope = 1")

    known = str(raised.value).partition("there are ")[2].split(", ")
    assert sorted(known) == sorted(
        [
            *("accelerator", "engine_url", "extensions", "idle_after_s", "max_workers"),
            *("memory_budget_mb", "min_workers", "model_parameters", "models", "models_at_start"),
            *("name", "price_per_hour_usd", "slots", "startup_s", "warm"),
        ]
    )


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"--pools: cannot read .*none\.toml: No such file"):
        read_pools(tmp_path / "none.toml")


def test_a_pool_with_a_memory_budget_loads_its_models_on_demand(tmp_path: Path) -> None:
    pools = """
        [[pool]]
        name = "small"
        memory_budget_mb = 700
        [[pool]]
        name = "warm"
        models_at_start = ["echo"]
        [[pool]]
        name = "empty"
        models_at_start = []
        [[pool]]
        name = "plain"
    """
    small, warm, empty, plain = _read(tmp_path, pools).pools

    assert small.pool.loads_on_demand
    assert (small.models_at_start, small.memory_budget_mb) == (frozenset(), 700)
    assert (warm.models_at_start, warm.memory_budget_mb) == (frozenset({"echo"}), None)
    assert (empty.models_at_start, empty.pool.loads_on_demand) == (frozenset(), True)
    assert (plain.models_at_start, plain.memory_budget_mb) == (None, None)
    assert not plain.pool.loads_on_demand


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("memory_budget_mb = 0", "memory_budget_mb: must be at least 1, not 0"),
        (
            'models = ["echo"]\nmodels_at_start = ["x"]',
            "models_at_start: 'x' is none of the pool's",
        ),
        ('engine_url = "a:1"\nmemory_budget_mb = 1', "memory_budget_mb: has no meaning beside"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_refused(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(StartError, match=said):
        _read(tmp_path, f'[[pool]]\nname = "p"\n{more}\n')
