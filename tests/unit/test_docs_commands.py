"""The commands that the documentation prints work as they are printed, from the checkout."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
BARE = re.compile(r"(?:^|\$\(|^\$ |[;|&] |\bexec )(?:synapse|python3?) ")
NAME = re.compile(r"synapse [a-z]+( [a-z]+)?")
"""What a command is called, where the text speaks of it."""
POOLS = re.compile(r"--pools ([\w./-]+)")


def commands(page: str) -> list[str]:
    """The lines of its shell blocks, and what stands between backticks."""
    blocks = [text for kind, text in BLOCK.findall(page) if kind in ("", "sh", "bash", "console")]
    spans = SPAN.findall(BLOCK.sub("", page))
    return [line for text in blocks for line in text.splitlines()] + spans


def wrong(command: str) -> bool:
    """Whether it needs a PATH that nobody was told of, or a file that is not there."""
    if BARE.search(command) and not NAME.fullmatch(command):
        return True
    return any(not (ROOT / path).exists() for path in POOLS.findall(command))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_printed_as_they_can_be_pasted(page: Path) -> None:
    assert [command for command in commands(page.read_text()) if wrong(command)] == []


@pytest.mark.parametrize(
    ("command", "is_wrong"),
    [
        ("synapse keys create laptop --scopes admin", True),
        ("export OPENAI_API_KEY=$(synapse keys create laptop)", True),
        ("python -m synapse_worker.cache publish ./m", True),
        ('make run ARGS="--pools pools.toml"', True),
        ('make run ARGS="--pools docs/examples/pools.toml"', False),
        (".venv/bin/python -m synapse_worker --models echo", False),
        ("export OPENAI_API_KEY=$(.venv/bin/synapse keys create laptop)", False),
        ("synapse serve", False),
    ],
)
def test_what_cannot_be_pasted_is_found(command: str, is_wrong: bool) -> None:
    assert wrong(command) is is_wrong
