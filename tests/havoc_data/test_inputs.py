from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import random
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from havoc_core.errors import DataError
from havoc_data.archives import list_archive
from havoc_data.inputs import (
    Input,
    InputError,
    lies_in_packed_tar,
    packed_bytes,
    stamp_of,
    unpacked_end,
    unpacked_tars,
)

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
}
DATA = random.Random(0).randbytes(200_000).hex().encode() + b"A line.\n" * 5000


def packed(folder: Path, step: str, contents: bytes) -> Input:
    path = folder / f"a.{step}"
    path.write_bytes(contents)
    return Input(path.name, path, (step,), stamp=stamp_of(path.stat()))


def read(item: Input) -> tuple[bytes, str | None]:
    """(all bytes that can be had, why there are no more)."""
    pieces = []
    try:
        with item.open() as file:
            while block := file.read(70_000):
                pieces.append(block)
    except InputError as error:
        return b"".join(pieces), error.reason
    return b"".join(pieces), None


@pytest.mark.parametrize("step", PACK)
def test_what_is_packed_is_read_as_it_was_stream_after_stream(tmp_path: Path, step: str) -> None:
    item = packed(tmp_path, step, PACK[step](DATA) + PACK[step](b"") + PACK[step](b"the end"))
    assert read(item) == (DATA + b"the end", None)
    assert item.read_all() == DATA + b"the end"
    assert unpacked_end(item) == len(DATA) + 7
    with item.open_seekable() as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == b"end"


@pytest.mark.parametrize("step", PACK)
def test_a_packed_file_that_breaks_off_gives_what_stands_before_the_break(tmp_path: Path, step: str) -> None:
    whole = PACK[step](DATA)
    item = packed(tmp_path, step, whole[: len(whole) // 2])
    data, reason = read(item)
    assert DATA.startswith(data)
    # bzip2 and zstandard unpack block by block: the one that breaks off is lost.
    assert len(data) >= {"gz": 180_000, "xz": 150_000, "zst": 128_000, "bz2": 0}[step]
    assert reason == "its compressed data break off"
    assert unpacked_end(item) == len(data)


@pytest.mark.parametrize("step", ["gz", "zst"])
def test_a_wrong_checksum_at_the_end_costs_not_one_byte(tmp_path: Path, step: str) -> None:
    whole = bytearray(PACK[step](DATA))
    whole[-1 if step == "zst" else -8] ^= 1
    data, reason = read(packed(tmp_path, step, bytes(whole)))
    assert data == DATA
    assert reason is not None
    assert reason.startswith("its compressed data are damaged (")


@pytest.mark.parametrize("step", PACK)
def test_what_is_not_packed_as_its_name_says_is_named(tmp_path: Path, step: str) -> None:
    assert read(packed(tmp_path, step, b"plain text, and not packed"))[1] is not None
    assert read(packed(tmp_path, step, b""))[1] == "its compressed data break off"


def test_zero_bytes_behind_a_gzip_file_are_padding_and_frames_of_others_in_zstandard_are_passed_over(
    tmp_path: Path,
) -> None:
    assert read(packed(tmp_path, "gz", PACK["gz"](b"text") + bytes(70_000))) == (b"text", None)
    skipped = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"other"
    assert read(packed(tmp_path, "zst", skipped + PACK["zst"](b"text") + skipped)) == (b"text", None)


@pytest.mark.parametrize("step", PACK)
def test_a_bomb_is_bounded_and_named(tmp_path: Path, step: str) -> None:
    """80 MB of zero bytes: enough to pass the 64 MiB that anything may grow to."""
    item = packed(tmp_path, step, PACK[step](bytes(80_000_000)))
    tracemalloc.start()
    try:
        size, reason = 0, ""
        with item.open() as file:
            try:
                while block := file.read(2**20):
                    size += len(block)
            except InputError as error:
                reason = error.reason
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()
    assert size == 64 * 2**20
    assert "it grows to more than 67,108,864 bytes from" in reason
    assert "a decompression bomb; unpack it yourself if it is none" in reason


def test_a_bomb_inside_a_bomb_is_measured_by_the_file_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.gz.gz"
    path.write_bytes(PACK["gz"](PACK["gz"](bytes(80_000_000))))
    assert unpacked_end(Input("a", path, ("gz", "gz"))) == 64 * 2**20


def test_a_range_of_a_file_on_disk_is_read_from_its_first_to_its_last_byte(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    item = Input("a", tmp_path / "a", start=3, end=7)
    assert item.read_all() == b"3456"
    assert (unpacked_end(item), packed_bytes(item)) == (7, 4)
    assert unpacked_end(replace(item, end=None)) == 10
    with item.open_seekable() as file:
        assert file.read() == b"0123456789"


def test_lines_and_small_pieces_can_be_read(tmp_path: Path) -> None:
    item = packed(tmp_path, "gz", PACK["gz"](b"one\ntwo\nthree"))
    with item.open() as file:
        assert list(file) == [b"one\n", b"two\n", b"three"]
    with item.open() as file:
        buffer = bytearray(5)
        assert isinstance(file, io.BufferedIOBase)
        assert (file.readinto(buffer), bytes(buffer)) == (5, b"one\nt")
        assert file.read1(2) == b"wo"
        assert file.read() == b"\nthree"
        assert (file.read(), file.read1(), file.readline()) == (b"", b"", b"")
    with item.open() as file, io.TextIOWrapper(file, encoding="utf-8") as text:
        assert text.readlines() == ["one\n", "two\n", "three"]


def test_a_file_that_must_be_read_as_a_whole_may_not_be_larger_than_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    item = Input("a", tmp_path / "a")
    assert item.read_all(5) == b"12345"
    with pytest.raises(InputError, match="it has more than 4 bytes, and must be read as a whole; cut it into parts"):
        item.read_all(4)
    with pytest.raises(InputError, match="break off"):
        packed(tmp_path, "gz", PACK["gz"](b"12345")[:-1]).read_all()


def test_a_file_that_is_gone_is_an_input_error_of_no_length(tmp_path: Path) -> None:
    item = Input("a", tmp_path / "a", start=3)
    for attempt in (item.open, item.open_seekable):
        with pytest.raises(InputError, match=r"it cannot be read \(No such file or directory\)"), attempt():
            pass
    assert unpacked_end(item) == 3


def test_a_file_that_changes_while_it_is_read_stops_everything(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"before")
    item = Input("a.txt", path, stamp=stamp_of(path.stat()))
    with pytest.raises(DataError) as caught, item.open() as file:
        file.read(3)
        path.write_bytes(b"after that")
    assert caught.value.where == str(path)
    assert caught.value.found == "changed while it was being read."
    assert caught.value.remedy.startswith("Start again when nothing writes to it any more")
    with pytest.raises(DataError, match="changed while it was being read"), item.open_seekable() as file:
        file.read()
    assert replace(item, stamp=None).read_all() == b"after that"


def test_a_packed_file_that_was_cut_while_it_was_read_has_changed_and_is_not_merely_damaged(tmp_path: Path) -> None:
    item = packed(tmp_path, "gz", PACK["gz"](DATA))
    item.path.write_bytes(item.path.read_bytes()[:5000])
    with pytest.raises(DataError, match="changed while it was being read"):
        read(item)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_member_of_a_zip_archive_is_read_and_its_damage_is_noticed(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("first.txt", "first")
        archive.writestr("in/second.txt", DATA)
    first, second = (Input(each.name, path, each.packing) for each in list_archive(Input("a.zip", path)).members)
    assert read(first) == (b"first", None)
    assert read(second) == (DATA, None)
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 0xFF
    path.write_bytes(contents)
    data, reason = read(second)
    assert reason is not None
    assert "data are damaged" in reason
    assert unpacked_end(second) == len(data)
    assert read(first) == (b"first", None)
    path.write_bytes(path.read_bytes()[:200])
    broken = read(second)[1]
    assert broken is not None
    assert "breaks off" in broken or "break off" in broken


def tar(path: Path, mode: Any, **members: bytes) -> list[Input]:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    stamp = stamp_of(path.stat())
    found = list_archive(Input(path.name, path, stamp=stamp))
    assert found.refused == ()
    return [Input(f"{path.name}!/{each.name}", path, each.packing, stamp=stamp) for each in found.members]


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tbz", "w:bz2"), ("a.txz", "w:xz")]
)
def test_members_of_a_tar_archive_are_read_one_by_one_and_all_in_one_pass(tmp_path: Path, name: str, mode: str) -> None:
    items = tar(tmp_path / name, mode, one=b"1" * 700, empty=b"", two=DATA, three=b"3")
    wanted = [b"1" * 700, b"", DATA, b"3"]
    assert [read(item) for item in items] == [(data, None) for data in wanted]
    assert [unpacked_end(item) for item in items] == [700, 0, len(DATA), 1]
    assert [lies_in_packed_tar(item) for item in items] == [name != "a.tar"] * 4
    # In any order, some of them, and one that is asked for twice.
    chosen = [items[3], items[0], items[2], items[0]]
    with unpacked_tars(chosen) as places:
        assert [read(places[item])[0] for item in chosen] == [b"3", b"1" * 700, DATA, b"1" * 700]
        assert [places[item].origin for item in chosen] == [item.origin for item in chosen]
        assert all(len(places[item].packing) == 1 for item in chosen)
        used = {places[item].path for item in chosen}
    assert name == "a.tar" or not any(path.exists() for path in used)


def test_unpacking_a_tar_archive_that_has_changed_stops_everything(tmp_path: Path) -> None:
    items = tar(tmp_path / "a.tar.gz", "w:gz", one=b"1")
    tar(tmp_path / "a.tar.gz", "w:gz", one=b"other", two=b"2")
    with pytest.raises(DataError, match="changed while it was being read"), unpacked_tars(items):
        pass


def test_a_tar_archive_that_is_gone_says_so_when_its_members_are_read(tmp_path: Path) -> None:
    items = tar(tmp_path / "a.tar.gz", "w:gz", one=b"1")
    items[0].path.unlink()
    with unpacked_tars(items) as places:
        assert read(places[items[0]])[1] == "it cannot be read (No such file or directory)"


def test_no_room_to_unpack_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    items = tar(tmp_path / "a.tar.gz", "w:gz", one=DATA)
    script = f"""
import pickle, resource, signal, sys
from havoc_core.errors import DataError
from havoc_data.inputs import unpacked_tars
items = pickle.loads({pickle.dumps(items)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as on a full disk, write fails with an error
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with unpacked_tars(items):
        pass
except DataError as error:
    print(error)
"""
    said = run(script)
    assert f"{items[0].path}: there is no room to unpack it in " in said
    assert "Make room there, or name another folder in the environment variable TMPDIR." in said


def run(script: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    ).stdout


def test_an_input_can_be_sent_to_another_process(tmp_path: Path) -> None:
    (item,) = tar(tmp_path / "a.tar.gz", "w:gz", one=b"1")
    assert pickle.loads(pickle.dumps(item)) == item
