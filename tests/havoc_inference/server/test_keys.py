"""Keys: read from a file, compared in constant time."""

from __future__ import annotations

import pytest

from havoc_core.errors import ConfigError
from havoc_inference.server.keys import Keys, read_keys

KEY, OTHER = "0123456789abcdef", "fedcba9876543210"


def test_every_key_of_the_file_opens_and_nothing_else_does(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# for the laptop\n{KEY}\n\n  {OTHER}  \n")
    keys = read_keys(path)
    assert keys.accept(f"Bearer {KEY}".encode())
    assert keys.accept(f"bearer {OTHER}".encode())
    for wrong in (b"", b"Bearer", b"Bearer ", KEY.encode(), f"Basic {KEY}".encode(), f"Bearer {KEY}x".encode()):
        assert not keys.accept(wrong)
    assert not keys.accept(b"Bearer # for the laptop")
    assert not keys.accept(b"Bearer \xff\x00")


def test_keys_are_not_kept_as_they_are():
    assert KEY not in repr(vars(Keys((KEY,))))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read .* Name a text file with one key a line"):
        read_keys(tmp_path / "nothing")


def test_a_file_without_a_key_is_refused_since_it_would_let_nobody_in(tmp_path):
    (tmp_path / "keys").write_text("# none yet\n")
    with pytest.raises(ConfigError, match="keys holds no key"):
        read_keys(tmp_path / "keys")


@pytest.mark.parametrize("line", ["short", "two words in one key of length", "schlüssel-mit-umlaut-äöü"])
def test_a_key_that_is_easily_found_or_cannot_be_sent_is_refused(line, tmp_path):
    (tmp_path / "keys").write_text(f"{KEY}\n{line}\n")
    with pytest.raises(ConfigError, match="is shorter than 16 characters, or has spaces"):
        read_keys(tmp_path / "keys")
