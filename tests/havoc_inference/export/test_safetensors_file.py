"""The format against its reference implementation, in both directions, and what damage is answered with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from havoc_core.errors import DataError
from havoc_core.tensor_file import TensorSource
from havoc_inference.export import safetensors_file

reference = pytest.importorskip("safetensors.torch")

TENSORS = {
    "a.weight": torch.arange(12, dtype=torch.float32).view(3, 4),
    "b.weight": torch.linspace(-1, 1, 10).bfloat16().view(5, 2),
    "c.weight": torch.tensor([1.5]),
    "empty": torch.empty(0, 3),
}


def sources():
    return {name: TensorSource.of(tensor) for name, tensor in TENSORS.items()}


def changed_header(path: Path, change) -> None:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def test_the_reference_reads_what_is_written_here(tmp_path):
    safetensors_file.write(tmp_path / "x.safetensors", sources())
    found = reference.load_file(tmp_path / "x.safetensors")
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_what_the_reference_writes_is_read_here(tmp_path):
    reference.save_file({**TENSORS, "half": torch.ones(2, 2).half()}, tmp_path / "model.safetensors")
    found = safetensors_file.read_folder(tmp_path)
    assert torch.equal(found["b.weight"].read(), TENSORS["b.weight"])
    assert found["half"].read().dtype == torch.float16
    assert found["empty"].read().shape == (0, 3)


def test_many_bytes_go_into_several_files_and_come_back(tmp_path):
    names = safetensors_file.write_folder(tmp_path, sources(), max_shard_bytes=60)
    assert names == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, "model.safetensors.index.json"]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 48 + 20 + 4
    found = safetensors_file.read_folder(tmp_path)
    assert all(torch.equal(found[name].read(), tensor) for name, tensor in TENSORS.items())


def test_no_more_than_one_tensor_is_made_at_a_time(tmp_path):
    alive: list[int] = []

    class Counted(TensorSource):
        def made(self) -> torch.Tensor:
            alive.append(1)
            return super().made()

    given = {str(n): Counted((4,), torch.float32, lambda out: out.zero_()) for n in range(3)}
    safetensors_file.write(tmp_path / "x", given)
    assert len(alive) == 3


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"model\.safetensors: there is no such file of weights"):
        safetensors_file.read_folder(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 8, b"\xff" * 20, (5).to_bytes(8, "little") + b"{nope", (2).to_bytes(8, "little") + b"[]"]
)
def test_what_is_no_such_file_is_said(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"is no safetensors file, or a damaged one"):
        safetensors_file.read_folder(tmp_path)


def test_a_file_that_breaks_off_is_noticed_when_it_is_opened_or_read(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors_file.write(path, sources())
    found = safetensors_file.read_folder(tmp_path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"the place of b.weight does not fit its shape or the file"):
        safetensors_file.read_folder(tmp_path)
    with pytest.raises(DataError, match=r"breaks off while its weights are read"):
        found["b.weight"].read()
    path.unlink()
    with pytest.raises(DataError, match=r"model.safetensors: cannot be read \(No such file"):
        found["b.weight"].read()


def test_a_place_that_does_not_fit_the_shape_is_noticed(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors_file.write(path, sources())
    changed_header(path, lambda header: header["a.weight"].update(shape=[4, 4]))
    with pytest.raises(DataError, match=r"the place of a.weight does not fit its shape"):
        safetensors_file.read_header(path)


def test_numbers_of_another_kind_are_named(tmp_path):
    reference.save_file({"x": torch.ones(2, dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"x holds numbers of kind I8\. Only F32, BF16, F16"):
        safetensors_file.read_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"is no index of weights"),
        ('{"weight_map": {"a": "../a.safetensors"}}', r"names ../a.safetensors, which is no file of this folder"),
        ('{"weight_map": {"zz": "one.safetensors"}}', r"zz is not in the file that the index names"),
    ],
)
def test_a_wrong_index_is_said(tmp_path, content, message):
    safetensors_file.write(tmp_path / "one.safetensors", sources())
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(DataError, match=message):
        safetensors_file.read_folder(tmp_path)


def test_a_folder_without_permission_is_said(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    safetensors_file.write(path, sources())

    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"cannot be opened \(Permission denied\)"):
        safetensors_file.read_header(path)
