"""README.md's commands: found by their marks, run as printed, and failing when they fail."""

from __future__ import annotations

from pathlib import Path

import pytest

import readme_commands
from readme_commands import ReadmeError, base_url, block, commands, run_test

README = Path(__file__).resolve().parents[2] / "README.md"
SAMPLE = """
<!-- ci:run -->
```sh
make run
```

```sh
not marked
```

<!-- ci:test -->

```sh
make test
# twice
```
"""


def test_marked_blocks_are_found_and_others_are_not() -> None:
    assert commands(SAMPLE) == {"run": "make run\n", "test": "make test\n# twice\n"}


def test_a_missing_or_doubled_block_is_an_error() -> None:
    with pytest.raises(ReadmeError, match="no sh block marked <!-- ci:curl -->"):
        block(SAMPLE, "curl")
    with pytest.raises(ReadmeError, match="more than one"):
        commands(SAMPLE + SAMPLE)


def test_the_readme_has_all_the_blocks_that_are_run() -> None:
    assert {"run", "curl", "test"} <= set(commands(README.read_text()))


@pytest.mark.parametrize(
    ("curl", "url"),
    [
        ('curl -s "http://127.0.0.1:8080/results/$job?wait=30"', "http://127.0.0.1:8080"),
        ("curl http://localhost/health", "http://localhost"),
        ("curl http://[::1]:80/x", "http://[::1]:80"),
    ],
)
def test_the_server_is_the_one_that_the_curl_lines_name(curl: str, url: str) -> None:
    assert base_url(curl) == url


def test_a_failing_command_in_the_middle_fails_the_block() -> None:
    with pytest.raises(ReadmeError, match="status 1"):
        run_test("<!-- ci:test -->\n```sh\nfalse\ntrue\n```\n")


def test_bad_usage_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert readme_commands.main([]) == 2
    assert "usage" in capsys.readouterr().err
