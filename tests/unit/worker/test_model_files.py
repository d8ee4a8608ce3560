import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synapse_worker.bert import BertConfig, Encoder
from synapse_worker.errors import WorkerError
from synapse_worker.onnx_graph import ElementType, Graph
from synapse_worker.safetensors import Place, read_tensors
from tests.unit.worker.a_model import a_model, folder, safetensors


def test_tensors_are_read_by_name_with_type_and_shape(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "I64", "shape": [1], "data_offsets": [24, 32]},
    }
    numbers = np.arange(6, dtype=np.float32)
    path = safetensors(
        tmp_path / "m.safetensors", header, numbers.tobytes() + (7).to_bytes(8, "little")
    )

    found = read_tensors(path)

    assert set(found.values) == {"a", "b"}
    assert np.array_equal(found.values["a"], numbers.reshape(2, 3))
    assert found.values["b"].tolist() == [7]


@pytest.mark.parametrize("pad", range(4))
def test_only_numbers_in_fp32_where_a_processor_can_read_them_have_a_place(
    tmp_path: Path, pad: int
) -> None:
    header = {
        "__metadata__": {"pad": "-" * pad},
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F16", "shape": [2], "data_offsets": [8, 12]},
        "c": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]},
    }
    numbers = np.arange(4, dtype=np.float32)
    path = safetensors(tmp_path / "m.safetensors", header, numbers.tobytes())

    found = read_tensors(path)

    start = path.stat().st_size - 16
    whole = {"a": Place("m.safetensors", start), "c": Place("m.safetensors", start + 12)}
    assert found.places == ({} if start % 4 else whole)
    assert found.values["a"].tolist() == [0, 1]
    assert found.values["c"].tolist() == [3]


@pytest.mark.parametrize("beside", [False, True])
def test_a_graph_beside_its_weights_has_only_what_had_to_be_changed(
    tmp_path: Path, beside: bool
) -> None:
    model = a_model(tmp_path / "m")
    written = Encoder.of(model, BertConfig.read(model), beside_weights=beside).build()
    tensors = read_tensors(model / "model.safetensors").values
    words = tensors["embeddings.word_embeddings.weight"]
    product = tensors["encoder.layer.1.output.dense.weight"]
    query = tensors["encoder.layer.1.attention.self.query.weight"]

    assert (words.tobytes() in written) is not beside
    assert (np.ascontiguousarray(product.T).tobytes() in written) is not beside
    assert np.ascontiguousarray(query.T)[0].tobytes() in written
    assert (b"model.safetensors" in written) is beside


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "BF9", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [5], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1]},
    ],
)
def test_a_broken_file_is_told_in_one_line(tmp_path: Path, entry: dict[str, Any]) -> None:
    path = safetensors(tmp_path / "m.safetensors", {"a": entry}, b"0000")

    with pytest.raises(WorkerError, match="not a usable safetensors file"):
        read_tensors(path)


def test_a_file_that_ends_early_is_told_with_its_sizes(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    path = safetensors(tmp_path / "m.safetensors", header, bytes(8))
    whole = path.read_bytes()

    for size in range(8, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(WorkerError, match="ends early") as raised:
            read_tensors(path)
    told = f"{path} ends early: it has {len(whole) - 1} of {len(whole)} bytes"
    assert str(raised.value) == f"{told}. Wait until its download is done, or fetch it again"


def test_what_is_no_such_file_is_told_too(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello, this is no model at all")

    with pytest.raises(WorkerError, match="not a usable"):
        read_tensors(tmp_path / "text")
    with pytest.raises(WorkerError, match="not a usable"):
        read_tensors(tmp_path / "nothing")


def test_the_shape_of_an_encoder_is_read(tmp_path: Path) -> None:
    found = BertConfig.read(folder(tmp_path))

    assert (found.hidden, found.layers, found.heads) == (8, 2, 2)
    assert (found.positions, found.vocabulary) == (16, 30)


@pytest.mark.parametrize(
    ("config", "pooling", "problem"),
    [
        ({"model_type": "mpnet"}, None, "only BERT with gelu"),
        ({"hidden_act": "relu"}, None, "only BERT with gelu"),
        ({}, {"pooling_mode_cls_token": True}, "only pooling by the mean"),
        ({}, {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "only pooling"),
        ({}, {"pooling_mode": "cls"}, "only pooling"),
        ({}, {"pooling_mode": ["mean", "max"]}, "only pooling"),
    ],
)
def test_another_kind_of_model_is_refused(
    tmp_path: Path, config: dict[str, Any], pooling: dict[str, Any] | None, problem: str
) -> None:
    with pytest.raises(WorkerError, match=problem):
        BertConfig.read(folder(tmp_path, config, pooling))


SINCE_2_4 = {
    "word_embedding_dimension": 8,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": True,
    "pooling_mode_lasttoken": False,
    "include_prompt": True,
}
TODAY = {"embedding_dimension": 8, "pooling_mode": "mean", "include_prompt": True}


def modules(root: Path, *kinds: str) -> None:
    listed = [{"idx": at, "name": str(at), "type": kind} for at, kind in enumerate(kinds)]
    (root / "modules.json").write_text(json.dumps(listed))


@pytest.mark.parametrize("pooling", [SINCE_2_4, TODAY])
def test_what_sentence_transformers_writes_today_is_read(
    tmp_path: Path, pooling: dict[str, Any]
) -> None:
    found = folder(tmp_path, pooling=pooling)
    kinds = ("base.modules.transformer.Transformer", "models.Pooling", "models.Normalize")
    modules(found, *(f"sentence_transformers.{kind}" for kind in kinds))

    assert BertConfig.read(found).hidden == 8


def test_a_model_with_a_layer_after_its_pooling_is_refused(tmp_path: Path) -> None:
    found = folder(tmp_path)
    kinds = ("models.Transformer", "models.Pooling", "models.Dense")
    modules(found, *(f"sentence_transformers.{kind}" for kind in kinds))

    with pytest.raises(WorkerError, match=r"modules\.json: it has a 'Dense'; only Normalize"):
        BertConfig.read(found)


def test_a_folder_without_a_description_is_told(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"config\.json cannot be read"):
        BertConfig.read(tmp_path)


def test_a_graph_is_written_as_onnx_lays_it_down() -> None:
    graph = Graph("g")
    graph.input("x", ElementType.FLOAT32, ["rows", 300])
    total = graph.node("Add", ["x", graph.weight("w", np.array([1.5], dtype=np.float32))], axis=-1)
    graph.output(total, ElementType.FLOAT32, ["rows", 300])

    written = graph.model({"": 17})

    def value(name: bytes) -> bytes:  # a ValueInfo: name, tensor type FLOAT, shape [rows, 300]
        shape = b"\x0a\x06\x12\x04rows\x0a\x03\x08\xac\x02"
        tensor = b"\x08\x01\x12" + bytes([len(shape)]) + shape
        kind = b"\x0a" + bytes([len(tensor)]) + tensor
        return b"\x0a" + bytes([len(name)]) + name + b"\x12" + bytes([len(kind)]) + kind

    weight = b"\x08\x01\x10\x01\x42\x01w\x4a\x04\x00\x00\xc0\x3f"
    axis = b"\x0a\x04axis\x18" + b"\xff" * 9 + b"\x01" + b"\xa0\x01\x02"
    node = b"\x0a\x01x\x0a\x01w\x12\x05Add_1\x1a\x05Add_1\x22\x03Add\x3a\x00"
    node += b"\x2a" + bytes([len(axis)]) + axis
    parts = [(0x5A, value(b"x")), (0x2A, weight), (0x0A, node), (0x62, value(b"Add_1"))]
    body = b"\x12\x01g" + b"".join(bytes([key, len(part)]) + part for key, part in parts)
    opset = b"\x0a\x00\x10\x11"
    size = (
        bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) if len(body) > 127 else bytes([len(body)])
    )
    assert written == b"\x08\x08" + b"\x42\x04" + opset + b"\x3a" + size + body
