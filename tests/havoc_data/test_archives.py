from __future__ import annotations

import gzip
import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from havoc_data.archives import Listing, Refused, archive_steps, list_archive, peeled
from havoc_data.inputs import Input


def listed(path: Path) -> Listing:
    return list_archive(Input(path.name, path))


def refused(listing: Listing) -> dict[str, str]:
    return {each.name: each.reason for each in listing.refused}


def contents(path: Path) -> dict[str, bytes]:
    return {each.name: Input(each.name, path, each.packing).read_all() for each in listed(path).members}


def add(archive: tarfile.TarFile, name: str, data: bytes = b"x", **fields: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize(
    ("name", "steps", "bare"),
    [
        ("a.txt", (), "a.txt"),
        ("a.txt.gz", ("gz",), "a.txt"),
        ("A.TXT.GZ.ZST", ("zst", "gz"), "A.TXT"),
        ("a.bz2", ("bz2",), "a"),
        ("gz", (), "gz"),
    ],
)
def test_the_name_of_a_packed_file_tells_how_it_is_unpacked(name: str, steps: tuple[str, ...], bare: str) -> None:
    assert peeled(name) == (steps, bare)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("a.zip", ("zip",)),
        ("a.tar", ("tar",)),
        ("a.tar.gz", ("gz", "tar")),
        ("A.TGZ", ("gz", "tar")),
        ("a.tar.zst", ("zst", "tar")),
        ("a.tar.xz", ("xz", "tar")),
        ("a.tbz2", ("bz2", "tar")),
        ("a.txt.gz", None),
        ("a.docx", None),
    ],
)
def test_the_name_of_an_archive_tells_how_its_members_are_reached(name: str, steps: tuple[str, ...] | None) -> None:
    assert archive_steps(name) == steps


def test_members_of_a_zip_archive_that_must_not_be_read_are_named_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("folder")
        for name in ("good.txt", "folder/good.txt", "/absolute.txt", "../up.txt", "a/../../up.txt", "C:/drive.txt"):
            archive.writestr(name, name)
        archive.writestr("back\\slash.txt", "x")
        archive.writestr(link, "../../secret")
    listing = listed(path)
    assert [member.name for member in listing.members] == ["good.txt", "folder/good.txt"]
    out = "its path leads out of the archive"
    assert refused(listing) == {
        "/absolute.txt": out,
        "../up.txt": out,
        "a/../../up.txt": out,
        "C:/drive.txt": out,
        "back\\slash.txt": "its path holds a backslash and may lead out of the archive",
        "link.txt": "it is a link, and links in archives are not followed",
    }
    assert next(each.bytes for each in listing.refused if each.name == "../up.txt") == 9
    assert contents(path) == {"good.txt": b"good.txt", "folder/good.txt": b"folder/good.txt"}


def test_encrypted_members_and_unknown_methods_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("lzma.txt", "x" * 100)
        archive.writestr(zipfile.ZipInfo("secret.txt"), "x")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1  # the flag of encryption in the list of members
    path.write_bytes(data)
    assert refused(listed(path)) == {
        "lzma.txt": "it is compressed by method 14, which is not known here",
        "secret.txt": "it is encrypted",
    }


def test_links_devices_and_paths_that_lead_out_of_a_tar_archive_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "good.txt", b"good")
        add(archive, "folder", b"", type=tarfile.DIRTYPE)
        add(archive, "../up.txt")
        add(archive, "/absolute.txt")
        add(archive, "link.txt", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "hard.txt", b"", type=tarfile.LNKTYPE, linkname="good.txt")
        add(archive, "pipe", b"", type=tarfile.FIFOTYPE)
        add(archive, "n" * 300 + ".txt", b"long")
    assert contents(path) == {"good.txt": b"good", "n" * 300 + ".txt": b"long"}
    link = "it is a link, and links in archives are not followed"
    assert refused(listed(path)) == {
        "../up.txt": "its path leads out of the archive",
        "/absolute.txt": "its path leads out of the archive",
        "link.txt": link,
        "hard.txt": link,
        "pipe": "it is a device or no regular file",
    }


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_of_two_members_of_one_name_the_last_is_read_and_the_other_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as zipped:
            zipped.writestr("a.txt", "old!")
            with pytest.warns(UserWarning, match="Duplicate name"):
                zipped.writestr("a.txt", "new")
    else:
        with tarfile.open(path, "w") as archive:
            add(archive, "a.txt", b"old!")
            add(archive, "a.txt", b"new")
    assert contents(path) == {"a.txt": b"new"}
    reason = "its member a.txt occurs again later in it, and only the last is read"
    assert listed(path).refused == (Refused("", reason, 4),)


def test_a_zip_archive_that_promises_too_much_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", bytes(70_000_000))
    assert listed(path) == Listing(
        (), (Refused("", "it promises more than 200 times its size: a decompression bomb", path.stat().st_size),)
    )


def test_members_of_a_zip_archive_that_share_their_bytes_are_a_bomb(tmp_path: Path) -> None:
    """As in the bombs that put many members on one stream: each alone would be small enough."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "the same")
        archive.writestr("b.txt", "the same")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 42 : at + 46] = bytes(4)  # where the local header of the second member stands
    path.write_bytes(data)
    assert [member.name for member in listed(path).members] == ["a.txt"]
    assert refused(listed(path)) == {"b.txt": "its bytes are those of another member too: a decompression bomb"}


def test_a_zip_archive_that_is_cut_off_is_named_with_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x" * 1000)
    path.write_bytes(path.read_bytes()[:-30])
    (only,) = listed(path).refused
    assert only.reason.startswith("its list of members is damaged or missing (File is not a zip file)")
    assert (only.name, only.bytes) == ("", path.stat().st_size)


def test_a_zip_archive_that_is_compressed_once_more_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.zip.gz"
    path.write_bytes(gzip.compress(b"PK"))
    assert listed(path).refused[0].reason == "a ZIP archive that is compressed once more is not opened; unpack it"


def broken_tar(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def small_tar(*names: str, size: int = 1000) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in names:
            add(archive, name, name[0].encode() * size)
    return out.getvalue()


def test_a_tar_archive_that_is_cut_off_keeps_what_stands_before_the_cut(tmp_path: Path) -> None:
    path = broken_tar(tmp_path / "a.tar", small_tar("a", "b")[: 512 + 1024 + 512 + 300])
    assert contents(path) == {"a": b"a" * 1000, "b": b"b" * 300}
    (only,) = listed(path).refused
    assert only.reason == (
        "it breaks off or is damaged after b (unexpected end of data); the members before that are kept"
    )


def test_a_compressed_tar_archive_that_is_cut_off_keeps_what_stands_before_the_cut(tmp_path: Path) -> None:
    draw = random.Random(0)
    members = {name: draw.randbytes(30_000) for name in "abc"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            add(archive, name, data)
    packed = gzip.compress(out.getvalue())
    path = broken_tar(tmp_path / "a.tar.gz", packed[: len(packed) // 2])
    found = contents(path)
    assert found["a"] == members["a"]
    assert members["b"].startswith(found["b"])
    assert 10_000 < len(found["b"]) < 20_000
    assert "c" not in found
    assert "its compressed data break off" in listed(path).refused[0].reason


def test_a_damaged_header_in_a_tar_archive_is_not_taken_for_its_end(tmp_path: Path) -> None:
    """tarfile says nothing about it: every member behind the damage would be lost in silence."""
    data = bytearray(small_tar("a", "b", "c"))
    data[512 + 1024 + 148] ^= 0x55  # the checksum in the header of b
    path = broken_tar(tmp_path / "a.tar", bytes(data))
    assert contents(path) == {"a": b"a" * 1000}
    assert refused(listed(path)) == {"": "a header in it is damaged; the members before that are kept"}


def test_a_tar_archive_without_its_end_mark_may_be_cut_off(tmp_path: Path) -> None:
    path = broken_tar(tmp_path / "a.tar", small_tar("a")[: 512 + 1024])
    assert contents(path) == {"a": b"a" * 1000}
    assert refused(listed(path)) == {
        "": "it has no end mark: it may be cut off; the members before that are kept",
    }


def test_what_follows_the_end_mark_of_a_tar_archive_is_named(tmp_path: Path) -> None:
    path = broken_tar(tmp_path / "a.tar", small_tar("a") + small_tar("b"))
    assert list(contents(path)) == ["a"]
    assert "something follows its end mark at byte" in refused(listed(path))[""]


@pytest.mark.parametrize("data", [b"", b"no tar archive", bytes([255]) * 2000])
def test_what_is_no_tar_archive_is_named_with_its_size(tmp_path: Path, data: bytes) -> None:
    path = broken_tar(tmp_path / "a.tar", data)
    (only,) = listed(path).refused
    assert only.reason.startswith("it is damaged or no tar archive (")
    assert only.bytes == len(data)


def test_an_extended_header_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("header")
    info.type, info.size = tarfile.XHDTYPE, 2**33
    path = broken_tar(tmp_path / "a.tar", small_tar("a")[: 512 + 1024] + info.tobuf(tarfile.GNU_FORMAT) + bytes(9000))
    assert list(contents(path)) == ["a"]
    assert "a header of 8589934592 bytes" in refused(listed(path))[""]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_of_too_many_members_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in "abcd":
                archive.writestr(name, name)
    else:
        path.write_bytes(small_tar("a", "b", "c", "d"))
    assert len(list_archive(Input(path.name, path), max_members=4).members) == 4
    assert list_archive(Input(path.name, path), max_members=3) == Listing(
        (), (Refused("", "it has more than 3 members; unpack it", path.stat().st_size),)
    )


def test_random_damage_never_brings_out_another_error(tmp_path: Path) -> None:
    draw = random.Random(1)
    whole = {"a.tar": small_tar("a", "b", "c", size=100), "a.tar.gz": gzip.compress(small_tar("a", "b", size=100))}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a", "b", "c"):
            archive.writestr(name, name * 100)
    whole["a.zip"] = out.getvalue()
    for name, data in whole.items():
        for _ in range(150):
            damaged = bytearray(data)
            for _ in range(draw.randint(1, 6)):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            (tmp_path / name).write_bytes(damaged[: draw.randint(1, len(damaged) * 2)])
            listing = listed(tmp_path / name)
            assert all(each.reason for each in listing.refused)
