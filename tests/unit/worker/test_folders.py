"""What the worker puts on disk and takes away again, and what it reads there."""

import fcntl
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from synapse_worker.agent.folder import ModelFolder
from synapse_worker.backends.parameters import model_parameters
from synapse_worker.config import BUNDLED_MODELS, WorkerConfig, default_venv
from synapse_worker.errors import WorkerError
from synapse_worker.gguf import main as print_gguf
from synapse_worker.gguf import read_array, read_metadata
from synapse_worker.process import TritonProcess, open_log
from synapse_worker.runtime import TritonRuntime, find_runtime, runtime_from_facts
from synapse_worker.shared_memory import lock_file, new_region_prefix, remove_stale_regions
from synapse_worker.staging import build_stage
from synapse_worker.triton import Ports, TritonProgram

NOT_ASKED: Any = None
"""The process of a log."""


def test_regions_of_the_dead_are_removed_and_those_of_the_living_kept(tmp_path: Path) -> None:
    dead, alive = new_region_prefix(), new_region_prefix()
    for prefix in (dead, alive):
        lock_file(prefix, tmp_path).touch()
        (tmp_path / f"{prefix}0001").touch()
    (tmp_path / "somebody-elses").touch()
    held = os.open(lock_file(alive, tmp_path), os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_SH)

    removed = remove_stale_regions(tmp_path)

    assert sorted(removed) == sorted([f"{dead}0001", f"{dead}lock"])
    assert len(list(tmp_path.iterdir())) == 3
    os.close(held)


def runtime(root: Path) -> TritonRuntime:
    backend = root / "backend"
    return TritonRuntime(
        root / "bin" / "python", "3.11", root / "server", backend, root / "stub", (root / "lib",)
    )


def test_the_stage_links_what_is_asked_for_and_is_made_once(tmp_path: Path) -> None:
    config = WorkerConfig(models=("echo",), venv=None, state_dir=tmp_path / "state")

    stage = build_stage(config, runtime(tmp_path))

    assert [path.name for path in stage.models.iterdir()] == ["echo"]
    assert (stage.models / "echo" / "config.pbtxt").is_file()
    assert (stage.python_path / "synapse_worker" / "backends" / "echo.py").is_file()
    assert (stage.backends / "python" / "triton_python_backend_stub").is_symlink()
    assert build_stage(config, runtime(tmp_path)) == stage
    assert [path.name for path in config.state_dir.iterdir()] == [stage.root.name]


def test_a_stage_that_a_cleaner_has_been_at_is_mended(tmp_path: Path) -> None:
    config = WorkerConfig(models=("echo",), venv=None, state_dir=tmp_path / "state")
    stage = build_stage(config, runtime(tmp_path))
    (stage.models / "echo").unlink()
    shutil.rmtree(stage.backends)
    (stage.python_path / "synapse_worker").unlink()
    (stage.python_path / "synapse_worker").symlink_to("/somewhere/else")

    assert build_stage(config, runtime(tmp_path)) == stage

    assert (stage.models / "echo" / "config.pbtxt").is_file()
    assert (stage.python_path / "synapse_worker" / "backends" / "echo.py").is_file()
    assert (stage.backends / "python" / "triton_python_backend_stub").is_symlink()
    assert [path.name for path in stage.models.iterdir()] == ["echo"]


def test_an_agents_folder_of_models_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    folder, other = ModelFolder(tmp_path), ModelFolder(tmp_path)
    folder.open()
    for name in ("kept", "removed"):
        folder.put(name, tmp_path / name)
    folder.remove("removed")
    folder.mend()

    for deleted in (folder.path / "kept", folder.path, folder.path.parent, tmp_path / "agents"):
        deleted.unlink() if deleted.is_symlink() else shutil.rmtree(deleted)
        folder.mend()
        assert [path.readlink() for path in folder.path.iterdir()] == [tmp_path / "kept"]
    shutil.rmtree(tmp_path / "agents")
    folder.put("new", tmp_path / "new")
    other.open()  # sweeps up the folders of the dead

    assert sorted(path.name for path in folder.path.iterdir()) == ["kept", "new"]
    folder.close()
    other.close()
    assert not list((tmp_path / "agents").iterdir())


def test_a_log_is_cut_while_triton_goes_on_writing_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synapse_worker.process.MAX_LOG_BYTES", 10)
    path = tmp_path / "triton.log"
    with path.open("ab", buffering=0) as log:
        process = TritonProcess(NOT_ASKED, path, 0)
        log.write(b"0123456789")
        process.bound_log()
        assert path.stat().st_size == 10
        log.write(b"abcde")
        process.bound_log()
        log.write(b"more")

    assert path.read_bytes() == b"more"
    assert (tmp_path / "triton.log.1").read_bytes() == b"56789abcde"
    assert process.log_since_start() == "more"
    path.unlink()
    process.bound_log()
    TritonProcess(NOT_ASKED, Path("/dev/stdout"), None).bound_log()


def test_a_log_behind_a_link_is_neither_moved_nor_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is /dev/stdout, which may be a file: root would rename it for all, or cut the file."""
    monkeypatch.setattr("synapse_worker.process.MAX_LOG_BYTES", 20)
    theirs, link = tmp_path / "theirs.log", tmp_path / "stdout"
    theirs.write_bytes(b"what they wrote before. ")
    link.symlink_to(theirs)

    with open_log(link) as log:
        process = TritonProcess(NOT_ASKED, link, log.tell())
        log.write(b"and Triton after it")
    process.bound_log()

    assert link.readlink() == theirs
    assert theirs.read_bytes() == b"what they wrote before. and Triton after it"
    assert process.log_since_start() == "and Triton after it"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stdout", "theirs.log"]


def test_a_folder_a_shell_would_misread_is_not_given_to_triton(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    config = WorkerConfig(models=("echo",), venv=None, state_dir=tmp_path / "my $(docs)")

    assert build_stage(config, None).root.parent == tmp_path / f"synapse-worker-{os.getuid()}"


def test_the_command_serves_the_models_on_the_ports_and_the_environment_is_the_workers(
    tmp_path: Path,
) -> None:
    config = WorkerConfig(
        models=("echo",),
        venv=tmp_path,
        state_dir=tmp_path / "state",
        model_parameters={"echo": {"test_hooks": "true"}},
    )
    found = runtime(tmp_path)
    program = TritonProgram(config, found, build_stage(config, found))

    command = program.command(Ports(1, 2, 3), "synapse-x-", parent_pid=4)
    env = program.environment({"PYTHONHOME": "/wrong", "PATH": "/bin", "LD_LIBRARY_PATH": "/cuda"})

    assert {"--load-model=echo", "--http-port=1", "--grpc-port=2", "--metrics-port=3"} <= {*command}
    assert "PYTHONHOME" not in env
    assert env["PATH"] == f"{tmp_path}/bin:/bin"
    assert env["LD_LIBRARY_PATH"] == f"{tmp_path}/lib:/cuda"
    config_of_echo = {"name": "echo", "parameters": {"test_hooks": {"string_value": "false"}}}
    assert model_parameters(config_of_echo, env) == {"test_hooks": "true"}


def test_paths_start_from_the_folder_that_a_model_s_owner_knows(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "m")
    config = {"parameters": {"gguf_path": {"string_value": "weights.gguf"}}}

    found = model_parameters(config, {}, tmp_path / "link")

    assert found == {"gguf_path": str(tmp_path / "m" / "weights.gguf")}


def test_paths_among_a_models_parameters_start_from_its_folder() -> None:
    given = {"gguf_path": "1/model.gguf", "model_path": "/weights", "artifacts": "", "slots": "4"}
    config = {"name": "m", "parameters": {k: {"string_value": v} for k, v in given.items()}}

    assert model_parameters(config, {}, Path("/models/m")) == {
        "gguf_path": "/models/m/1/model.gguf",
        "model_path": "/weights",
        "artifacts": "",
        "slots": "4",
    }
    assert model_parameters(config, {}) == given


def test_a_folder_of_the_callers_own_takes_the_place_of_links(tmp_path: Path) -> None:
    config = WorkerConfig(
        models=("anything",), venv=None, state_dir=tmp_path, model_folder=tmp_path / "own"
    )

    stage = build_stage(config, runtime(tmp_path))

    assert stage.models == tmp_path / "own"
    assert not (stage.root / "models").exists()


def test_unknown_and_unsafe_model_names_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"not a model name"):
        WorkerConfig(models=("../etc",), venv=None)
    with pytest.raises(WorkerError, match=r"no model 'ehco'.*Choose from: .*, echo, smollm2"):
        WorkerConfig(models=("ehco",), venv=None).model_dir("ehco")


def test_the_first_repository_that_has_a_model_wins(tmp_path: Path) -> None:
    (tmp_path / "echo").mkdir()
    (tmp_path / "echo" / "config.pbtxt").touch()
    config = WorkerConfig(
        models=("echo",), venv=None, model_repositories=(tmp_path, BUNDLED_MODELS)
    )

    assert config.model_dir("echo") == tmp_path / "echo"


FACTS: Mapping[str, Any] = {
    "version": "3.11",
    "library_dir": None,
    "library": None,
    "numpy": "1.26.4",
    "pytriton": None,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "has no Triton"),
        ({"version": "3.14"}, r"Python 3\.14, Triton supports 3\.11"),
        ({"numpy": "2.1.0"}, r"numpy 2\.1\.0, Triton's stub needs numpy 1"),
        ({"numpy": None}, "has no numpy"),
    ],
)
def test_an_environment_that_cannot_work_is_told_in_one_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    package = tmp_path / "pytriton"
    stub = package / "tritonserver/python_backend_stubs/3.11/triton_python_backend_stub"
    stub.parent.mkdir(parents=True)
    stub.touch()
    facts = {**FACTS, **({"pytriton": str(package)} if change else {}), **change}

    with pytest.raises(WorkerError, match=message):
        runtime_from_facts(Path("python"), facts)


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ("x86_64", "has no Triton"),
        ("aarch64", "has no Triton"),
        ("riscv64", "Linux x86_64 or aarch64 only, this is Linux riscv64"),
    ],
)
def test_a_worker_runs_where_there_is_a_wheel_of_triton(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, message: str
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("synapse_worker.runtime._probe", lambda _: FACTS)

    with pytest.raises(WorkerError, match=message):
        find_runtime(tmp_path)


def test_a_missing_environment_is_told_with_how_to_name_or_make_it(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"--worker-venv.*`scripts/setup worker`"):
        find_runtime(tmp_path)


def test_the_environment_of_the_checkout_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr("sys.prefix", str(checkout / ".venv"))
    monkeypatch.chdir(elsewhere)

    assert default_venv() == Path(".venv-worker")
    (checkout / ".venv-worker").mkdir(parents=True)
    assert default_venv() == checkout / ".venv-worker"
    (elsewhere / ".venv-worker").mkdir()
    assert default_venv() == Path(".venv-worker")


def test_metadata_tell_the_length_of_arrays_and_nothing_of_the_weights(tmp_path: Path) -> None:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    words = struct.pack("<IIQ", 9, 8, 2) + text("a") + text("ü")
    numbers = struct.pack("<IIQ", 9, 4, 3) + bytes(12)
    pairs = [
        text("tokens") + words,
        text("scores") + numbers,
        text("eos") + struct.pack("<II", 4, 2),
        text("name") + struct.pack("<I", 8) + text("smol"),
        text("bos") + struct.pack("<I?", 7, True),
    ]
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs)) + b"".join(pairs) + b"weights")

    assert read_metadata(file) == {
        "tokens": 2,
        "scores": 3,
        "eos": 2,
        "name": "smol",
        "bos": True,
    }
    assert read_array(file, "tokens") == ["a", "ü"]
    assert read_array(file, "scores") == [0, 0, 0]
    assert read_array(file, "merges") == []
    for nonsense in (b"nonsense", b""):
        file.write_bytes(nonsense)
        with pytest.raises(ValueError, match=r"x\.gguf is not a GGUF file"):
            read_metadata(file)


def test_the_command_prints_what_a_gguf_says_of_itself(tmp_path: Path) -> None:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    pair = text("tokenizer.chat_template") + struct.pack("<I", 8) + text("{{ messages }}")
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + pair)

    assert print_gguf([str(file)]) == "tokenizer.chat_template: '{{ messages }}'\n"
    assert print_gguf([str(file), "tokenizer.chat_template"]) == "{{ messages }}"
    with pytest.raises(SystemExit, match="has no nothing; it has tokenizer"):
        print_gguf([str(file), "nothing"])
    with pytest.raises(SystemExit, match=r"nowhere\.gguf cannot be read"):
        print_gguf([str(tmp_path / "nowhere.gguf")])
