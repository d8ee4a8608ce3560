"""Clients of tests wait as long as tests do."""

from __future__ import annotations

import inspect

import httpx

from tests.patience import PATIENCE_S


def test_httpx_is_as_patient_as_the_tests() -> None:
    with httpx.Client() as client:
        assert client.timeout == httpx.Timeout(PATIENCE_S)
    assert inspect.signature(httpx.get).parameters["timeout"].default == httpx.Timeout(PATIENCE_S)
