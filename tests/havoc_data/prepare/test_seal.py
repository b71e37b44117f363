"""The seal of a finished folder: one flipped bit anywhere is found."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from havoc_core.errors import DataError
from havoc_data.prepare.seal import SEAL, check_sealed, checksum_of, is_sealed, seal


@pytest.fixture
def folder(tmp_path):
    """Three files and their seal."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name, content in (("one.npy", b"1" * 50), ("two.json", b"{}"), ("b/three", b"")):
        (tmp_path / "a" / name).write_bytes(content)
    seal(tmp_path / "a")
    return tmp_path / "a"


def test_a_folder_as_it_was_written_is_whole(folder):
    assert is_sealed(folder)
    check_sealed(folder, "one.npy", "two.json", "b/three", remedy="")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_bit_in_any_file_or_in_the_seal_is_found(folder, data):
    name = data.draw(st.sampled_from(["one.npy", "two.json", SEAL]))
    good = (folder / name).read_bytes()
    damaged = bytearray(good)
    damaged[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(damaged)
    checked = [name] if name != SEAL else ["one.npy"]
    with pytest.raises(DataError, match=r"is damaged \(") as caught:
        check_sealed(folder, *checked, remedy="Delete it.")
    assert caught.value.where == str(folder / name)
    assert caught.value.remedy == "Delete it."
    assert not is_sealed(folder)
    (folder / name).write_bytes(good)
    assert is_sealed(folder)


@pytest.mark.parametrize("name", ["one.npy", "b/three", SEAL])
def test_a_file_that_is_missing_is_found(folder, name):
    (folder / name).unlink()
    assert not is_sealed(folder)
    with pytest.raises(DataError, match="is damaged"):
        check_sealed(folder, "one.npy", "b/three", remedy="")


def test_a_file_that_the_seal_does_not_name_is_not_trusted(folder):
    (folder / "more").write_bytes(b"x")
    with pytest.raises(DataError, match=r"more: is damaged \(its checksum is not that of seal.json\)"):
        check_sealed(folder, "more", remedy="")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '{"files": 3, "checksum": ""}', '{"files": {"x": 1}}'])
def test_a_seal_that_is_something_else_is_none(folder, content):
    (folder / SEAL).write_text(content)
    assert not is_sealed(folder)
    with pytest.raises(DataError, match=r"seal.json: is damaged \("):
        check_sealed(folder, "one.npy", remedy="")


def test_a_checksum_is_of_the_values_and_not_of_their_spelling():
    values = {"b": [1, 2.5, None, "é\ud800"], "a": {"x": True}}
    assert checksum_of(values) == checksum_of(json.loads(json.dumps(values, indent=3)))
    assert checksum_of(values) != checksum_of({**values, "a": {"x": False}})
