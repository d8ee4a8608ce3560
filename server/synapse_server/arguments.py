"""What the arguments of commands are made of: each refuses what it cannot be, and says why."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from synapse.domain.access import MAX_LIMIT, is_tenant_name
from synapse.domain.api_key import MAX_NAME_LENGTH, is_key_name
from synapse.domain.errors import SynapseError
from synapse.domain.origin import origins_of
from synapse.domain.webhook_url import Allowed
from synapse_server.config import DATA_DIR

T = TypeVar("T", bound=str)

LOG_LEVELS = ("debug", "info", "warning", "error")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def on_or_off(text: str) -> bool:
    """A switch."""
    if text not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"must be on or off, not {text!r}")
    return text == "on"


def folder(text: str) -> Path:
    """A folder. None is not the one that the command happens to be called in."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must name a folder; . is the current one")
    return Path(text)


def add_data_dir(parser: argparse._ActionsContainer, environ: Mapping[str, str]) -> None:
    """The option that says which server a command is about; the environment may set it too."""
    value = environ.get("SYNAPSE_DATA_DIR", DATA_DIR)
    parser.add_argument(
        "--data-dir", type=folder, default=value, help="of the server [SYNAPSE_DATA_DIR]"
    )


def add_models_dir(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """The option that names models beside ours; the environment may set it too."""
    value = environ.get("SYNAPSE_MODELS_DIR", "")
    text = "folder with more catalogue entries [SYNAPSE_MODELS_DIR]"
    parser.add_argument("--models-dir", default=value, help=text)


def refusal(error: SynapseError) -> str:
    """Why something is refused, for who called a command: what the API would say, and options."""
    if error.param == "models":
        return f"{error.message}; a catalogue of your own: --models-dir"
    return error.message


def log_level(text: str) -> str:
    """From what on the log tells things."""
    if text.lower() not in LOG_LEVELS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(LOG_LEVELS)}, not {text!r}")
    return text.upper()


def count(text: str) -> int:
    """A whole number from 1."""
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number") from error
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value


def places(text: str) -> Allowed:
    """Hosts with their ports, commas between them."""
    try:
        return Allowed.of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def origins(text: str) -> tuple[str, ...]:
    """Origins of web pages, commas between them."""
    try:
        return origins_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def name(text: str) -> str:
    """What people call something."""
    if not is_key_name(text):
        raise argparse.ArgumentTypeError(
            f"must have 1 to {MAX_NAME_LENGTH} characters, all of which can be shown in a line"
        )
    return text


def tenant(text: str) -> str:
    """A tenant's name."""
    if not is_tenant_name(text):
        raise argparse.ArgumentTypeError(
            f"{text!r}: must be letters, digits, '.', '_' and '-', at most 64, no sign first"
        )
    return text


def several(kind: Callable[[str], T]) -> Callable[[str], frozenset[T]]:
    """Values with commas between them."""

    def parse(text: str) -> frozenset[T]:
        texts = [each.strip() for each in text.split(",") if each.strip()]
        if not texts:
            raise argparse.ArgumentTypeError("names nothing; leave it out, or name at least one")
        try:
            return frozenset(kind(each) for each in texts)
        except ValueError as error:
            known = ", ".join(getattr(kind, "__members__", {}).values())
            raise argparse.ArgumentTypeError(f"{text!r}: choose from {known}") from error

    return parse


def duration(most_s: float, *, may_be_none: bool = True) -> Callable[[str], float]:
    """A time, in seconds: "90s", "15m", "12h" or "30d"; at most `most_s`, and 0 if that may be."""

    def parse(text: str) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
        if match is None:
            raise argparse.ArgumentTypeError(f"{text!r}: must be like 90s, 15m, 12h or 30d")
        seconds = float(match[1]) * _UNITS_S[match[2]]
        if seconds == 0 and not may_be_none:
            raise argparse.ArgumentTypeError(f"{text}: must be above 0")
        if seconds > most_s:
            raise argparse.ArgumentTypeError(f"{text}: at most {most_s / _UNITS_S['d']:g}d")
        return seconds

    return parse


def limit(kind: Callable[[str], float]) -> Callable[[str], float]:
    """A limit: a number above 0 that the API would take too."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: must be a number") from error
        if not 0 < value <= MAX_LIMIT:
            raise argparse.ArgumentTypeError(f"{text}: must be above 0, and at most {MAX_LIMIT}")
        return value

    return parse
