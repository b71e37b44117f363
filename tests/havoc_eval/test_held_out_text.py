"""Held-out files give back what was written, or say which line is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from havoc_core.errors import DataError
from havoc_eval.held_out_text import HeldOutDocument, read_held_out


def test_texts_and_dialogs_come_back(write: Callable[..., Path]) -> None:
    dialog = (("user", "Größe?"), ("assistant", "😀"))
    assert list(read_held_out(write("domain", ["a\r\nb\u2028c\n", dialog]))) == [
        HeldOutDocument("domain-0", "test", text="a\r\nb\u2028c\n"),
        HeldOutDocument("domain-1", "test", messages=dialog),
    ]


def test_bytes_are_those_of_the_contents(write: Callable[..., Path]) -> None:
    text, dialog = read_held_out(write("domain", ["Größe", (("user", "Größe?"), ("assistant", "😀"))]))
    assert (text.num_bytes, dialog.num_bytes) == (7, 8 + 4)
    assert dialog.contents == ("Größe?", "😀")


def test_documents_without_any_text_are_left_out(write: Callable[..., Path]) -> None:
    path = write("domain", ["", (("user", ""), ("assistant", "")), "a"])
    assert [document.text for document in read_held_out(path)] == ["a"]


def test_several_frames_are_one_file(tmp_path: Path) -> None:
    line = b'{"id": "1", "source": "s", "text": "a"}\n'
    (tmp_path / "x").write_bytes(zstandard.compress(line) + zstandard.compress(line))
    assert len(list(read_held_out(tmp_path / "x"))) == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.zst: cannot be read \(No such file.*\)\. Build it again: havoc data"):
        list(read_held_out(tmp_path / "none.zst"))


@pytest.mark.parametrize("data", [b"no zstd at all", zstandard.compress(b"\xff\xfe\n")])
def test_a_damaged_file_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bad").write_bytes(data)
    with pytest.raises(DataError, match=r"bad: is damaged \(.*\)\. Build it again"):
        list(read_held_out(tmp_path / "bad"))


def test_a_file_that_breaks_off_anywhere_is_named(tmp_path: Path) -> None:
    """Regression: half a frame was taken for the end, and the evaluation went on with the texts before it, or with none."""
    line = b'{"id": "1", "source": "s", "text": "a"}\n'
    first = len(zstandard.compress(line))
    whole = zstandard.compress(line) + zstandard.compress(line * 3000)
    for length in range(1, len(whole)):
        (tmp_path / "bad").write_bytes(whole[:length])
        if length == first:
            assert len(list(read_held_out(tmp_path / "bad"))) == 1
            continue
        with pytest.raises(DataError, match=r"bad: is damaged \(.*\)\. Build it again"):
            list(read_held_out(tmp_path / "bad"))
    (tmp_path / "bad").write_bytes(whole)
    assert len(list(read_held_out(tmp_path / "bad"))) == 3001


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1]",
        '{"id": "1", "source": "s"}',
        '{"id": 1, "source": "s", "text": "a"}',
        '{"id": "1", "source": "s", "text": 5}',
        '{"id": "1", "source": "s", "text": "\\ud800"}',
        '{"id": "1", "source": "s", "messages": [["user"]]}',
        '{"id": "1", "source": "s", "messages": [["user", null]]}',
        '{"id": "1", "source": "s", "messages": 7}',
        "",
    ],
)
def test_a_line_that_is_no_document_is_named(tmp_path: Path, line: str) -> None:
    good = json.dumps({"id": "1", "source": "s", "text": "a"})
    (tmp_path / "bad").write_bytes(zstandard.compress(f"{good}\n{line}\n".encode()))
    with pytest.raises(DataError, match=r"bad:2: is no held-out document \(.*Build it again"):
        list(read_held_out(tmp_path / "bad"))
