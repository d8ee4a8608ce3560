"""The layers are built for the very Python and architecture that the functions run on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.infra.translation import ROOT, TEMPLATE, read

MODULE = "python/grpc/cygrpc.cpython-{}-linux-gnu.so"


def built(folder: Path, tag: str, engine_tag: str | None = None) -> Path:
    """A build whose layers have one compiled module each."""
    for layer, named in (("CoreLayer", tag), ("EngineLayer", engine_tag or tag)):
        module = folder / layer / MODULE.format(named)
        module.parent.mkdir(parents=True)
        module.touch()
    return folder


def check(build: Path, python: str, machine: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "scripts" / "check-layers"), str(build), python, machine]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_layers_for_the_python_and_machine_asked_for_pass(tmp_path: Path) -> None:
    assert check(built(tmp_path, "313-aarch64"), "3.13", "aarch64").returncode == 0


@pytest.mark.parametrize(
    ("core", "engine"),
    [
        ("313-x86_64", "313-x86_64"),
        ("312-aarch64", "312-aarch64"),
        ("313-aarch64", "313-x86_64"),
    ],
)
def test_layers_for_another_are_refused_with_a_remedy(
    tmp_path: Path, core: str, engine: str
) -> None:
    result = check(built(tmp_path, core, engine), "3.13", "aarch64")

    assert result.returncode == 1
    assert "make build ARCH=aarch64 PYTHON_VERSION=3.13" in result.stderr


@pytest.mark.parametrize(("machine", "code"), [("aarch64", 0xB7), ("x86_64", 0x3E)])
def test_a_module_for_every_python_is_for_one_machine(
    tmp_path: Path, machine: str, code: int
) -> None:
    build = built(tmp_path, f"313-{machine}")
    module = build / "CoreLayer" / "python" / "cryptography" / "_rust.abi3.so"
    module.parent.mkdir(parents=True)
    module.write_bytes(b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + bytes([code, 0]))
    assert check(build, "3.13", machine).returncode == 0

    module.write_bytes(b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + bytes([0x03, 0]))
    assert "_rust.abi3.so" in check(build, "3.13", machine).stderr


def test_a_layer_without_a_compiled_module_is_refused(tmp_path: Path) -> None:
    build = built(tmp_path, "313-aarch64")
    (build / "EngineLayer" / MODULE.format("313-aarch64")).unlink()

    assert "EngineLayer" in check(build, "3.13", "aarch64").stderr


@pytest.mark.parametrize(
    ("given", "parameters"),
    [
        ([], "Architecture=arm64 PythonRuntime=python3.13"),
        (
            ["ARCH=x86_64", "PYTHON_VERSION=3.12"],
            "Architecture=x86_64 PythonRuntime=python3.12",
        ),
    ],
)
def test_make_deploys_what_it_builds(given: list[str], parameters: str) -> None:
    command = ["make", "-n", "deploy", "ENGINE_URL=host:1", *given]

    planned = subprocess.check_output(command, cwd=ROOT, text=True, env={"PATH": "/usr/bin:/bin"})

    assert parameters in re.sub(r"\s*\\\n\s*", " ", planned)


def test_the_template_and_the_layers_have_the_same_defaults() -> None:
    parameters = read(TEMPLATE)["Parameters"]
    architecture = {"aarch64": "arm64"}

    for makefile in (ROOT / "layers").glob("*/Makefile"):
        defaults = dict(re.findall(r"^(ARCH|PYTHON_VERSION) \?= (\S+)", makefile.read_text(), re.M))

        assert architecture[defaults["ARCH"]] == parameters["Architecture"]["Default"]
        assert f"python{defaults['PYTHON_VERSION']}" == parameters["PythonRuntime"]["Default"]
