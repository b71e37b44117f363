"""What was written is what lies on the disk."""

from __future__ import annotations

import pytest

from havoc_core.errors import DataError
from havoc_data.interchange._files import check_written


def test_a_file_of_another_size_than_was_written_is_refused(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(10))
    check_written(tmp_path / "a.bin", 10)
    with pytest.raises(DataError, match="10 bytes lie on the disk, 12 were written") as caught:
        check_written(tmp_path / "a.bin", 12)
    assert caught.value.where == str(tmp_path / "a.bin")
    assert caught.value.remedy == "The disk may be full or failing: export to another."
