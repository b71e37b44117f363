from __future__ import annotations

import pytest

from havoc_data.names import is_file_name


@pytest.mark.parametrize("name", ["a", "math.v2", "...", "ä", "a b", "~", "-rf"])
def test_a_name_that_stays_in_its_folder_is_a_file_name(name: str) -> None:
    assert is_file_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", "a\0b", None, 7])
def test_what_leads_elsewhere_or_is_no_text_is_none(name: object) -> None:
    assert not is_file_name(name)
