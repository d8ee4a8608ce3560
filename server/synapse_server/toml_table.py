"""Reads a TOML table strictly: what is wrong or unknown is said in one line that names the key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from synapse_server.config import StartError

KINDS = {str: "a string", int: "a whole number", list: "a list", dict: "a table"}


class Table:
    """One table of a file, whose keys are taken out one by one; `done` finds what is left over."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        """`where` is what the messages name it by, such as `pools.toml: [[pool]] "fast"`."""
        self.where = where
        self._left = dict(values)
        # As a dict, it keeps the order and has each once.
        self._known: dict[str, None] = {}

    def __contains__(self, key: str) -> bool:
        """Whether the key, known from now on, stands in the file and was not taken yet."""
        self._known[key] = None
        return key in self._left

    def error(self, key: str, problem: str) -> StartError:
        """What is wrong with a key."""
        return StartError(f"{self.where}: {key}: {problem}")

    def text(self, key: str, default: str | None = None) -> str:
        """A string that is not empty; required where there is no default."""
        value = self._take(key, str, default)
        if not value.strip() and value != default:
            raise self.error(key, "must not be empty")
        return str(value)

    def whole(self, key: str, default: int, least: int = 0) -> int:
        """A whole number of at least `least`."""
        value = self._take(key, int, default)
        if value < least:
            raise self.error(key, f"must be at least {least}, not {value}")
        return int(value)

    def number(self, key: str, default: float, least: float = 0.0) -> float:
        """A finite number of at least `least`."""
        self._known[key] = None
        value = self._left.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, f"must be a number, not {value!r}")
        if not (math.isfinite(value) and value >= least):
            raise self.error(key, f"must be at least {least:g}, not {value:g}")
        return float(value)

    def texts(self, key: str, *, least: int = 1) -> tuple[str, ...] | None:
        """A list of so many strings or more, none of them twice; None where it is left out."""
        if key not in self:
            return None
        values = self._take(key, list, None)
        are_texts = all(isinstance(value, str) and value.strip() for value in values)
        if len(values) < least or not are_texts:
            or_more = "one or more " if least else ""
            raise self.error(key, f"must be a list of {or_more}strings, not {values!r}")
        if len(set(values)) < len(values):
            raise self.error(key, f"must name none twice: {values!r}")
        return tuple(values)

    def table(self, key: str) -> Mapping[str, Any]:
        """A table below this one; empty where it is left out."""
        return dict(self._take(key, dict, {}))

    def tables(self, key: str) -> list[Mapping[str, Any]]:
        """The tables of an array `[[key]]`, in the order of the file."""
        values = self._take(key, list, [])
        if not all(isinstance(value, dict) for value in values):
            raise self.error(key, f"must be written as [[{key}]] tables")
        return list(values)

    def done(self) -> None:
        """Refuse what nobody has asked for.

        Raises:
            StartError: there is a key of no meaning.
        """
        for key in self._left:
            raise self.error(key, f"is not known here; there are {', '.join(self._known)}")

    def _take(self, key: str, kind: type, default: Any) -> Any:
        self._known[key] = None
        if key not in self._left:
            if default is None:
                raise self.error(key, f"is missing; give {KINDS[kind]}")
            return default
        value = self._left.pop(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.error(key, f"must be {KINDS[kind]}, not {value!r}")
        return value
