"""`samconfig.toml` names only parameters the template has."""

from __future__ import annotations

import tomllib

import pytest

from tests.infra.translation import ROOT, TEMPLATE, read

CONFIG = tomllib.loads((ROOT / "samconfig.toml").read_text())
ENVIRONMENTS = [name for name, value in CONFIG.items() if isinstance(value, dict)]


def test_the_environments_are_there() -> None:
    assert {"default", "prod", "local"} <= set(ENVIRONMENTS)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_overrides_are_parameters_of_the_template_with_allowed_values(environment: str) -> None:
    parameters = read(TEMPLATE)["Parameters"]
    overrides = CONFIG[environment]["deploy"]["parameters"]["parameter_overrides"]

    for override in overrides.split():
        name, _, value = override.partition("=")
        assert value in parameters[name].get("AllowedValues", [value])


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_each_environment_has_a_stack_of_its_own(environment: str) -> None:
    stacks = [CONFIG[name]["global"]["parameters"]["stack_name"] for name in ENVIRONMENTS]

    assert len(set(stacks)) == len(stacks)


def test_production_asks_before_it_changes_anything() -> None:
    assert CONFIG["prod"]["deploy"]["parameters"]["confirm_changeset"] is True
