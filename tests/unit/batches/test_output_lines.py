"""A line of a batch's files is one line to every reader."""

from __future__ import annotations

import json

import pytest

from synapse.application.batch_parts import Parts, joined
from tests.factories import a_file_batch, an_id
from tests.fakes import MemoryBlobStore
from tests.unit.batches.batch_world import BatchWorld, a_line

ENDS = [*"\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", "\r\n"]
"""What ends a line for `str.splitlines`."""

ODD = ["\ud800", "\U0001f600", "日本", '"', "\\", "\0", "\x7f", "\ufeff"]


@pytest.mark.parametrize("text", [*ENDS, *ODD])
async def test_every_result_is_one_line_whatever_is_written_in_it(text: str) -> None:
    blobs, batch = MemoryBlobStore(), a_file_batch()
    parts = Parts(batch, blobs, an_id)
    body = {"text": f"a{text}b", text: [text]}

    await parts.answered(0, f"c{text}0", body)
    await parts.answered(1, "c1", {})
    await parts.refused(2, f"c{text}2", (400, {"error": {"message": text}}))
    await parts.not_run(3, f"c{text}3", "invalid_json_line", f"not{text}JSON")
    await parts.flush()

    answers, errors = [
        [json.loads(line) for line in b"".join(pieces).decode().splitlines()]
        for pieces in (
            [piece async for piece in joined(batch, blobs, parts.outputs)],
            [piece async for piece in joined(batch, blobs, parts.errors)],
        )
    ]
    assert [line["custom_id"] for line in answers] == [f"c{text}0", "c1"]
    assert answers[0]["response"]["body"] == body
    assert [line["custom_id"] for line in errors] == [f"c{text}2", f"c{text}3"]
    assert errors[0]["response"]["body"] == {"error": {"message": text}}
    assert errors[1]["error"]["message"] == f"not{text}JSON"


@pytest.mark.parametrize("is_escaped", [True, False])
async def test_a_batch_of_texts_with_ends_of_lines_is_read_line_by_line(is_escaped: bool) -> None:
    world = BatchWorld()
    ends = "\x85\u2028\u2029"
    texts = [f"a{end}b" for end in ends] + [f"fail{end}" for end in ends]
    bodies = [{"model": "echo", "prompt": text} for text in texts]
    lines = [a_line(0, custom_id=text, body=body) for text, body in zip(texts, bodies, strict=True)]
    if not is_escaped:
        lines = [json.dumps(json.loads(line), ensure_ascii=False) for line in lines]

    await world.created(lines)
    await world.run()

    assert set(await world.output()) == set(texts[:3])
    assert {line["custom_id"] for line in await world.errors()} == set(texts[3:])
