"""An export is there as a whole or not at all, and nothing of others is replaced."""

from __future__ import annotations

import errno
import hashlib
import json

import pytest

from havoc_core.errors import CheckpointError, ConfigError
from havoc_inference.export import output_folder


def fill(folder, text="one", **record):
    with output_folder.writing(folder, dict(record)) as inside:
        (inside / "weights").write_text(text)


def test_an_export_appears_with_checksums_of_its_files(tmp_path):
    fill(tmp_path / "out", kind="f32")
    record = output_folder.read_record(tmp_path / "out")
    assert (record["kind"], record["version"]) == ("f32", 1)
    assert record["files"] == {"weights": [3, hashlib.sha256(b"one").hexdigest()]}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_earlier_export_is_replaced(tmp_path):
    fill(tmp_path / "out")
    fill(tmp_path / "out", "two")
    assert (tmp_path / "out" / "weights").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out")
    assert (tmp_path / "out" / "weights").is_file()


def test_what_no_export_made_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    (tmp_path / "out" / output_folder.RECORD).write_text(json.dumps({"format": "another"}))
    with pytest.raises(ConfigError, match=r"holds files that no export made\. Name a new folder: --out"):
        fill(tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"file is no folder\."):
        output_folder.refuse_to_overwrite(tmp_path / "file")
    assert (tmp_path / "out" / "thesis.tex").read_text() == "mine"


def test_where_the_block_fails_the_earlier_export_stays(tmp_path):
    fill(tmp_path / "out")
    with pytest.raises(ZeroDivisionError), output_folder.writing(tmp_path / "out", {}) as inside:
        (inside / "weights").write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "out" / "weights").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_and_a_missing_permission_are_one_message(tmp_path):
    for number, remedy in ((errno.ENOSPC, "Free some disk"), (errno.EACCES, "Name a folder that you may write to")):
        with (
            pytest.raises(CheckpointError, match=rf"the export cannot be written \(.*\)\. {remedy}"),
            output_folder.writing(tmp_path / "out", {}),
        ):
            raise OSError(number, "said by the system")
    assert list(tmp_path.iterdir()) == []


def test_where_the_last_rename_fails_the_earlier_export_comes_back(tmp_path, monkeypatch):
    fill(tmp_path / "out")
    real = type(tmp_path).rename

    def rename(self, target):
        if self.name.endswith(".writing"):
            raise OSError(errno.EIO, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", rename)
    with pytest.raises(CheckpointError, match="the export cannot be written"):
        fill(tmp_path / "out", "two")
    assert (tmp_path / "out" / "weights").read_text() == "one"
