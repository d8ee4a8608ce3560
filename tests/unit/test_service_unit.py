"""The unit of systemd that the documentation gives."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from synapse_server.cli import main
from synapse_server.config import ServerConfig

ROOT = Path(__file__).resolve().parents[2]
UNIT = (ROOT / "docs" / "examples" / "synapse.service").read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_finds_nothing_amiss(tmp_path: Path) -> None:
    program = tmp_path / ".venv" / "bin" / "synapse"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    unit = tmp_path / "synapse.service"
    unit.write_text(UNIT.replace("/opt/synapse", str(tmp_path)))

    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []


def test_its_command_is_one_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[ServerConfig] = []
    monkeypatch.setattr("synapse_server.cli._serve", configs.append)
    [started] = [line for line in UNIT.splitlines() if line.startswith("ExecStart=")]
    _, command, *options = started.split()

    assert main([command, *options]) == 0

    assert [config.data_dir for config in configs] == [Path("/var/lib/synapse")]
