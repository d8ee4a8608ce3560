"""Writes ONNX models: the few messages of its protobuf format that a plain graph needs.

The package that does it in full is forty times the size of what is used here, and needs a
protobuf runtime besides.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from synapse_worker.safetensors import Place

IR_VERSION = 8
OPSETS = {"": 17, "com.microsoft": 1}

Attribute = int | float | str | Sequence[int]
Dimension = int | str
"""A size, or the name of one that is known only when the graph runs."""


class ElementType(IntEnum):
    """What tensors hold, by ONNX's numbers."""

    FLOAT32 = 1
    UINT8 = 2
    INT8 = 3
    INT32 = 6
    INT64 = 7


_ELEMENT_TYPES = {
    np.dtype(np.float32): ElementType.FLOAT32,
    np.dtype(np.uint8): ElementType.UINT8,
    np.dtype(np.int8): ElementType.INT8,
    np.dtype(np.int32): ElementType.INT32,
    np.dtype(np.int64): ElementType.INT64,
}


@dataclass
class Graph:
    """A graph under construction; what is added later may use what was added before."""

    name: str
    _parts: list[bytes] = field(default_factory=list)
    _nodes: int = 0

    def weight(self, name: str, values: NDArray[np.generic], place: Place | None = None) -> str:
        """A constant; returns its name. One with a `place` is read from there, by the engine."""
        parts = [_number(1, size) for size in values.shape]
        parts += [_number(2, _ELEMENT_TYPES[values.dtype]), _text(8, name)]
        if place is None:
            parts.append(_bytes(9, np.ascontiguousarray(values).tobytes()))
        else:
            parts += _elsewhere(place, values.nbytes)
        self._parts.append(_bytes(5, b"".join(parts)))
        return name

    def node(
        self,
        kind: str,
        inputs: Sequence[str],
        *,
        domain: str = "",
        unused_outputs: int = 0,
        **attributes: Attribute,
    ) -> str:
        """An operation; returns the name of its first output. An input "" is left out."""
        self._nodes += 1
        output = f"{kind}_{self._nodes}"
        parts = [_text(1, name) for name in inputs]
        parts += [_text(2, output)]
        parts += [_text(2, f"{output}_unused_{number}") for number in range(unused_outputs)]
        parts += [_text(3, output), _text(4, kind), _text(7, domain)]
        parts += [_bytes(5, _attribute(name, value)) for name, value in attributes.items()]
        self._parts.append(_bytes(1, b"".join(parts)))
        return output

    def rename(self, source: str, name: str) -> None:
        """Give a value the name under which it is an output."""
        parts = [_text(1, source), _text(2, name), _text(4, "Identity")]
        self._parts.append(_bytes(1, b"".join(parts)))

    def input(self, name: str, kind: ElementType, shape: Sequence[Dimension]) -> str:
        """A value given at each run; returns its name."""
        self._parts.append(_bytes(11, _value_info(name, kind, shape)))
        return name

    def output(self, name: str, kind: ElementType, shape: Sequence[Dimension]) -> None:
        """Declare a value that is asked for at each run."""
        self._parts.append(_bytes(12, _value_info(name, kind, shape)))

    def model(self, opsets: Mapping[str, int] = OPSETS) -> bytes:
        """The whole as a model file's bytes."""
        parts = [_number(1, IR_VERSION)]
        for domain, version in opsets.items():
            parts.append(_bytes(8, _text(1, domain) + _number(2, version)))
        parts.append(_bytes(7, b"".join([_text(2, self.name), *self._parts])))
        return b"".join(parts)


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, int):
        return _text(1, name) + _number(3, value) + _number(20, 2)
    if isinstance(value, float):
        return _text(1, name) + _key(2, 5) + struct.pack("<f", value) + _number(20, 1)
    if isinstance(value, str):
        return _text(1, name) + _text(4, value) + _number(20, 3)
    return _text(1, name) + b"".join(_number(8, each) for each in value) + _number(20, 7)


def _elsewhere(place: Place, length: int) -> list[bytes]:
    """The fields of a tensor whose bytes are in another file."""
    where = {"location": place.file, "offset": str(place.offset), "length": str(length)}
    entries = [_bytes(13, _text(1, key) + _text(2, value)) for key, value in where.items()]
    return [*entries, _number(14, 1)]


def _value_info(name: str, kind: ElementType, shape: Sequence[Dimension]) -> bytes:
    sizes = [_number(1, size) if isinstance(size, int) else _text(2, size) for size in shape]
    dimensions = b"".join(_bytes(1, size) for size in sizes)
    tensor = _number(1, kind) + _bytes(2, dimensions)
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _key(field_number: int, wire_type: int) -> bytes:
    return _varint(field_number << 3 | wire_type)


def _number(field_number: int, value: int) -> bytes:
    return _key(field_number, 0) + _varint(value & 2**64 - 1)


def _bytes(field_number: int, value: bytes) -> bytes:
    return b"".join((_key(field_number, 2), _varint(len(value)), value))


def _text(field_number: int, value: str) -> bytes:
    return _bytes(field_number, value.encode())


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
