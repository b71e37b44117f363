"""Torch files whose tensors are made as they are written: ordinary files, in little memory."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_core import tensor_file
from havoc_core.tensor_file import TensorSource

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.uint8, torch.int16,
          torch.int32, torch.int64, torch.bool]  # fmt: skip


def source(tensor):
    return TensorSource(tuple(tensor.shape), tensor.dtype, lambda out: out.copy_(tensor))


def random_tensor(shape, dtype, seed):
    drawn = torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(dtype)


def saved(path, values):
    tensor_file.write(path, values)
    return torch.load(path, weights_only=True, mmap=True)


def assert_same(found, wanted):
    assert type(found) is type(wanted)
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    elif isinstance(wanted, torch.Tensor):
        assert (found.dtype, found.shape, found.device) == (wanted.dtype, wanted.shape, wanted.device)
        assert torch.equal(found, wanted)
    else:
        assert found == wanted


def test_sources_tensors_and_plain_values_come_back_from_an_ordinary_torch_file(tmp_path):
    master, moment, view = torch.arange(12.0).view(3, 4), torch.full((5,), 2.5, dtype=torch.bfloat16), torch.arange(10)
    values = {
        "w": {"master": source(master), "step": torch.tensor(3.0), "codes": [source(moment), view[::2]]},
        "plain": (7, "x", 0.5, None, True, (source(view),)),
        "empty": {"values": torch.empty(0, 3), "source": source(torch.empty(4, 0)), "dict": {}, "list": []},
    }
    wanted = {
        "w": {"master": master, "step": torch.tensor(3.0), "codes": [moment, view[::2]]},
        "plain": (7, "x", 0.5, None, True, (view,)),
        "empty": {"values": torch.empty(0, 3), "source": torch.empty(4, 0), "dict": {}, "list": []},
    }
    path = tmp_path / "a.pt"
    tensor_file.write(path, values)
    assert_same(torch.load(path, weights_only=True), wanted)
    assert_same(torch.load(path, weights_only=True, mmap=True), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_a_scalar_of_it_come_back(tmp_path, dtype):
    tensor, scalar = random_tensor((3, 5), dtype, seed=1), random_tensor((), dtype, seed=2)
    found = saved(tmp_path / "a.pt", [source(tensor), source(scalar)])
    assert_same(found, [tensor, scalar])


leaves = st.one_of(
    st.integers(-5, 5),
    st.tuples(st.lists(st.integers(0, 4), max_size=3), st.sampled_from(DTYPES), st.integers(0, 9), st.booleans()).map(
        lambda drawn: {"made": drawn}
    ),
)
structures = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
)


def build(drawn, make):
    if isinstance(drawn, dict) and set(drawn) == {"made"} and isinstance(drawn["made"], tuple):
        shape, dtype, seed, as_source = drawn["made"]
        return make(random_tensor(tuple(shape), dtype, seed), as_source)
    if isinstance(drawn, dict):
        return {key: build(value, make) for key, value in drawn.items()}
    return [build(value, make) for value in drawn] if isinstance(drawn, list) else drawn


@settings(max_examples=40, deadline=None)
@given(drawn=structures)
def test_what_is_loaded_is_what_torch_would_have_saved(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("property")
    torch.save(build(drawn, lambda tensor, _: tensor), folder / "wanted.pt")
    wanted = torch.load(folder / "wanted.pt", weights_only=True)
    found = saved(folder / "a.pt", build(drawn, lambda tensor, made: source(tensor) if made else tensor))
    assert_same(found, wanted)
    names = [sorted(zipfile.ZipFile(folder / name).namelist()) for name in ("wanted.pt", "a.pt")]
    assert [name.partition("/")[2] for name in names[0]] == [name.partition("/")[2] for name in names[1]]


def test_each_tensor_has_a_storage_of_its_own_and_no_more_than_its_values(tmp_path):
    base = torch.arange(1000.0)
    part, same = base[:10], source(base[:3])
    found = saved(tmp_path / "a.pt", {"a": part, "b": part, "c": base[5:7], "d": same, "e": same})
    storages = [tensor.untyped_storage() for tensor in found.values()]
    assert [storage.nbytes() for storage in storages] == [40, 40, 8, 12, 12]
    assert len({storage.data_ptr() for storage in storages}) == 5


def test_what_is_written_into_a_loaded_tensor_never_reaches_the_file(tmp_path):
    saved(tmp_path / "a.pt", [source(torch.ones(8))])[0].zero_()
    assert torch.equal(torch.load(tmp_path / "a.pt", weights_only=True)[0], torch.ones(8))


def test_a_source_is_asked_once_in_order_with_a_plain_tensor_on_the_cpu(tmp_path):
    asked = []

    def make(name):
        def fill(out):
            asked.append((name, tuple(out.shape), out.dtype, out.is_contiguous(), out.device.type, out.is_leaf))
            out.fill_(len(asked))

        return TensorSource((2, 3), torch.bfloat16, fill)

    found = saved(tmp_path / "a.pt", {"x": make("x"), "z": {"y": make("y")}, "b": make("b")})
    assert asked == [(name, (2, 3), torch.bfloat16, True, "cpu", True) for name in "xyb"]
    assert [found["x"][0, 0], found["z"]["y"][0, 0], found["b"][0, 0]] == [1, 2, 3]


def test_a_source_of_a_parameter_copies_it_when_it_is_written_and_leaves_no_graph(tmp_path):
    weight = torch.nn.Parameter(torch.zeros(4, 3))
    transposed = TensorSource.of(weight.t())
    assert (transposed.shape, transposed.dtype, transposed.nbytes) == ((3, 4), torch.float32, 48)
    with torch.no_grad():
        weight.copy_(torch.arange(12.0).view(4, 3))
    found = saved(tmp_path / "a.pt", {"w": transposed})["w"]
    assert torch.equal(found, torch.arange(12.0).view(4, 3).t())
    assert found.is_contiguous()
    assert not found.requires_grad


def test_sources_are_seen_at_any_depth():
    here = TensorSource((1,), torch.float32, lambda out: None)
    assert tensor_file.has_sources({"a": [1, {"b": (2, here)}]})
    assert not tensor_file.has_sources({"a": [1, {"b": (2, torch.ones(1))}]})


def test_other_zip_readers_find_the_checksums_right_and_a_flipped_bit_wrong(tmp_path):
    """skip_data leaves zeros for sums; an archive that every tool but torch calls damaged looks damaged."""
    path = tmp_path / "a.pt"
    tensor_file.write(path, {"a": source(torch.arange(100.0)), "b": torch.arange(7), "c": torch.empty(0)})
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    places = tensor_file.locate(path, [source(torch.arange(100.0)), source(torch.arange(7)), source(torch.empty(0))])
    content = bytearray(path.read_bytes())
    for place in places[:2]:
        beside, in_directory = (struct.unpack_from("<L", content, at)[0] for at in place.checksums)
        assert beside == in_directory != 0
    content[places[1].start + 3] ^= 1
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() == "archive/data/1"


def test_a_mapped_storage_lies_at_its_records_offset(tmp_path):
    """What `locate` rests on and no page of torch says. `mmap=True` could not work otherwise."""
    path = tmp_path / "a.pt"
    torch.save([torch.arange(1000.0), torch.arange(5), torch.ones(77, dtype=torch.int8)], path)
    loaded = torch.load(path, weights_only=True, mmap=True)
    content = path.read_bytes()
    starts = [content.index(tensor.numpy().tobytes()) for tensor in loaded]
    addresses = [tensor.untyped_storage().data_ptr() for tensor in loaded]
    assert [start - starts[0] for start in starts] == [address - addresses[0] for address in addresses]
    places = tensor_file.locate(path, [source(tensor) for tensor in loaded])
    assert [(place.start, place.nbytes) for place in places] == list(zip(starts, (4000, 40, 77), strict=True))


@pytest.mark.parametrize(
    ("values", "sources"),
    [
        ([torch.ones(3)], [torch.ones(4)]),
        ([torch.ones(3)], [torch.ones(3), torch.ones(3)]),
        ([torch.ones(3), torch.ones(2)], [torch.ones(2), torch.ones(3)]),
        ([torch.ones(6)[:3]], [torch.ones(3)]),
        ([torch.ones(3)] * 2, [torch.ones(3)] * 2),
    ],
    ids=["another size", "too few", "another order", "a view", "one storage twice"],
)
def test_a_file_that_is_laid_out_otherwise_is_refused_before_a_value_is_written(tmp_path, values, sources):
    torch.save(values, tmp_path / "a.pt")
    with pytest.raises(RuntimeError, match="lays its files out in a way that this HAVOC does not know"):
        tensor_file.locate(tmp_path / "a.pt", [source(tensor) for tensor in sources])


def test_places_beyond_four_gigabytes_are_found(tmp_path):
    """Sizes and offsets move to other fields of the archive there. The file is sparse: nothing of that size is written."""
    path = tmp_path / "a.pt"
    with path.open("wb") as file, torch.serialization.skip_data():
        torch.save([torch.empty(2**32 + 10, dtype=torch.int8), torch.empty(4)], file)
    large = TensorSource((2**32 + 10,), torch.int8, lambda out: None)
    small = TensorSource((4,), torch.float32, lambda out: None)
    places = tensor_file.locate(path, [large, small])
    assert places[1].start > 2**32
    with path.open("r+b") as file:
        file.seek(places[0].start + 2**32 + 9)
        file.write(b"\x07")
        file.seek(places[1].start)
        file.write(struct.pack("<4f", 1, 2, 3, 4))
        for number, place in enumerate(places):
            for at in place.checksums:
                file.seek(at)
                assert file.read(4) == bytes(4)
                file.seek(at)
                file.write(struct.pack("<L", 77 + number))
            file.seek(place.checksums[0] - 4)
            assert file.read(4) == b"PK\x07\x08"
    loaded = torch.load(path, weights_only=True, mmap=True)
    assert loaded[0][-1] == 7
    assert loaded[1].tolist() == [1, 2, 3, 4]
    with zipfile.ZipFile(path) as archive:
        assert [archive.getinfo(f"archive/data/{number}").CRC for number in range(2)] == [77, 78]


def test_what_a_source_raises_passes(tmp_path):
    def fill(out):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        tensor_file.write(tmp_path / "a.pt", {"a": torch.ones(3), "b": TensorSource((3,), torch.float32, fill)})


def test_a_disk_that_fills_up_between_two_tensors_is_an_os_error(tmp_path):
    """In a mapping it would be a SIGBUS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(out):
        out.zero_()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    try:
        with pytest.raises(OSError, match="too large"):
            tensor_file.write(
                tmp_path / "a.pt", [torch.ones(3), TensorSource((100_000,), torch.float32, fill), torch.ones(100_000)]
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


PEAK = """
import sys
from pathlib import Path
import torch
from havoc_core import checkpoint
from havoc_core.tensor_file import TensorSource

def read(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))

def sources(count):
    return {
        f"block.{at}": {"master": TensorSource((5_000_000,), torch.float32, lambda out, at=at: out.fill_(at + 1))}
        for at in range(count)
    }

folder = Path(sys.argv[1])
folder.mkdir()
checkpoint.save_tensors(folder / "small.pt", sources(1))  # what is loaded at first use is no part of the question
before = read("VmHWM")
checkpoint.save_tensors(folder / "large.pt", sources(20))
print(read("VmHWM") - before, (folder / "large.pt").stat().st_size)

before = read("RssAnon")
loaded = checkpoint.load_tensors(folder, "large.pt")
print(sum(int(value["master"][-1]) for value in loaded.values()), float(loaded["block.3"]["master"].sum()))
print(read("RssAnon") - before)
"""


def test_writing_takes_memory_for_one_tensor_and_reading_for_none(tmp_path):
    """400 MB in twenty tensors. One more copy of a tensor would pass, all of them at once would not."""
    command = [sys.executable, "-c", PEAK, str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    growth, size, checks, total, private = (float(word) for word in done.stdout.split())
    assert size > 400e6
    assert growth < 50e6
    assert (checks, total) == (sum(range(1, 21)), 4 * 5e6)
    assert private < 10e6
    (tmp_path / "a" / "large.pt").unlink()
