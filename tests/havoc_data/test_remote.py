"""A store that lies elsewhere is read as one that lies here, and what will be wanted is on its way."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from havoc_core.errors import ConfigError, DataError
from havoc_data.loading.loader import STEPS_AHEAD, Loader, MixturePlan
from havoc_data.remote import RemoteFolder, RemoteTokens
from havoc_data.shard_writer import ShardWriter
from havoc_data.store import SourceRecord, TokenStore, open_store, write_manifest

RATIOS = {"domain": 0.7, "general": 0.3}


class CountingFiles(MemoryFileSystem):
    """Files in memory that remember who asked for which bytes, in which thread."""

    protocol = "counting"
    asked: list[tuple[str, int | None, int | None, bool]] = []  # noqa: RUF012 - one for the whole process, as the files are
    cachable = False

    def cat_file(self, path, start=None, end=None, **kwargs):
        ahead = threading.current_thread().name.startswith("read-ahead")
        self.asked.append((path, start, end, ahead))
        return super().cat_file(path, start=start, end=end, **kwargs)


fsspec.register_implementation("counting", CountingFiles, clobber=True)


def write(folder, *, seed=0, shard_bytes=3000):
    """A store of two sources, several shards each."""
    draw = np.random.default_rng(seed)
    records = {}
    for place, group, count in (("math", "domain", 200), ("general", "general", 90), ("validation/domain", "domain", 30),
                                ("validation/general", "general", 30)):  # fmt: skip
        writer = ShardWriter(folder / place, dtype=np.dtype("uint16"), shard_bytes=shard_bytes)
        lengths = draw.integers(5, 150, count)
        for number, length in enumerate(lengths.tolist()):
            ids = np.concatenate([[0], draw.integers(10, 200, length - 2), [1]])
            writer.add(ids, {"origin": f"{place}/{number}", "ordinal": number})
        writer.seal()
        tokens = int(lengths.sum())
        records[place] = SourceRecord(group, tokens, count, tokens, shards=writer.shards)
    for group in ("domain", "general"):
        (folder / "validation" / f"{group}.jsonl.zst").write_bytes(b"held-out text of " + group.encode())
    training = {name: records[name] for name in ("math", "general")}
    validation = {group: records[f"validation/{group}"] for group in ("domain", "general")}
    facts = {"dtype": "uint16", "ratios": RATIOS, "dummy": True, "missing_groups": [], "inputs_key": str(seed)}
    write_manifest(folder, sources=training, validation=validation, facts=facts)
    return TokenStore(folder)


def upload(folder, url):
    files, root = fsspec.core.url_to_fs(url)
    for path in folder.rglob("*"):
        if path.is_file() and ".plans" not in path.parts:
            name = f"{root}/{path.relative_to(folder).as_posix()}"
            files.makedirs(name.rpartition("/")[0], exist_ok=True)
            files.pipe_file(name, path.read_bytes())


@pytest.fixture
def near(tmp_path):
    """The store in a folder."""
    return write(tmp_path / "near")


@pytest.fixture
def url(near):
    """The same store, elsewhere."""
    place = f"counting://{uuid.uuid4().hex}/store"
    upload(near.folder, place)
    CountingFiles.asked.clear()
    yield place
    files, root = fsspec.core.url_to_fs(place)
    files.rm(root, recursive=True)


def spoil(url, name, change):
    """Change a file of the far store; None removes it."""
    files, root = fsspec.core.url_to_fs(url)
    content = change(files.cat_file(f"{root}/{name}"))
    if content is None:
        files.rm(f"{root}/{name}")
    else:
        files.pipe_file(f"{root}/{name}", content)


def load(store, *, row_length=64):
    plan = MixturePlan(RATIOS, {}, row_length, "best_fit")
    return Loader(store, plan, seed=42, token_bytes=[b"x"] * 256, pad_id=2)


def test_a_store_elsewhere_gives_the_rows_hashes_and_held_out_batches_of_the_one_here(near, url, tmp_path):
    far = open_store(url, copies=tmp_path / "copies")
    assert far.is_far and not near.is_far
    assert far.id == near.id
    one, other = load(near), load(far)
    assert [row.hash() for row in other.rows(range(60))] == [row.hash() for row in one.rows(range(60))]
    assert other.rows_per_epoch == one.rows_per_epoch
    for slot in (0, 8, 16):
        kwargs = {"rows_per_step": 8, "micro_batch_size": 4}
        for a, b in zip(one.micro_batches(slot, **kwargs)[0], other.micro_batches(slot, **kwargs)[0], strict=True):
            assert np.array_equal(a.inputs, b.inputs) and np.array_equal(a.labels, b.labels) and a.lengths == b.lengths
    held_out = one.validation_batches(16, 4), other.validation_batches(16, 4)
    assert held_out[0].keys() == held_out[1].keys()
    for group in held_out[0]:
        for a, b in zip(held_out[0][group], held_out[1][group], strict=True):
            assert np.array_equal(a.inputs, b.inputs)
    assert list(far.training["math"].provenance()) == list(near.training["math"].provenance())


def test_documents_longer_than_a_row_are_cut_alike(near, url, tmp_path):
    far = open_store(url, copies=tmp_path / "copies")
    rows = load(far, row_length=32).rows(range(40))
    assert [row.hash() for row in rows] == [row.hash() for row in load(near, row_length=32).rows(range(40))]


def test_the_tokens_to_learn_from_stay_where_they_are_and_the_rest_is_copied_once(url, tmp_path):
    far = open_store(url, copies=tmp_path / "copies")
    names = {path.relative_to(far.folder).as_posix() for path in far.folder.rglob("*") if path.is_file()}
    assert "validation/domain.jsonl.zst" in names
    assert "validation/domain/00000.tok" in names
    assert {"math/00000.doc", "math/00000.prov.zst", "manifest.json"} <= names
    assert not any(name.endswith(".tok") for name in names if not name.startswith("validation"))
    assert not any(name.endswith(".writing") for name in names)
    before = {path: path.stat().st_mtime_ns for path in far.folder.rglob("*") if path.name != "manifest.json"}
    # What is there is not asked for again: it could be gone.
    spoil(url, "math/00000.prov.zst", lambda content: None)
    spoil(url, "validation/domain.jsonl.zst", lambda content: None)
    again = open_store(url, copies=tmp_path / "copies")
    assert again.folder == far.folder
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(load(again).rows(range(4))) == 4


def test_another_store_under_the_same_address_is_not_mixed_with_the_copies_of_the_first(url, tmp_path):
    first = open_store(url, copies=tmp_path / "copies")
    other = write(tmp_path / "other", seed=1)
    upload(other.folder, url)
    second = open_store(url, copies=tmp_path / "copies")
    assert second.id == other.id != first.id
    assert [r.hash() for r in load(second).rows(range(20))] == [r.hash() for r in load(other).rows(range(20))]


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
def test_all_that_a_step_needs_was_asked_for_before_the_step_and_nothing_twice(url, tmp_path, rank, world_size):
    loader = load(open_store(url, copies=tmp_path / "copies"))
    CountingFiles.asked.clear()
    rows_per_step, steps = 4, 12
    assert (steps + STEPS_AHEAD) * rows_per_step < loader.rows_per_epoch / 2
    for step in range(steps):
        begun = len([each for each in CountingFiles.asked if not each[3]])
        loader.micro_batches(
            step * rows_per_step, rows_per_step=rows_per_step, micro_batch_size=2, rank=rank, world_size=world_size
        )
        waited = len([each for each in CountingFiles.asked if not each[3]]) - begun
        assert (waited > 0) == (step == 0), step  # only the first step waits for its own
    for source in loader.sources.values():
        for tokens in source.stored._tokens:
            for coming in tokens._coming.values():
                coming.result()
    ranges = [each[:3] for each in CountingFiles.asked]
    assert len(set(ranges)) == len(ranges)
    mine = rows_per_step // world_size
    fragments = sum(
        len(loader.sources[row.source].fragments(row.position)[0])
        for step in range(steps + STEPS_AHEAD)
        for row in loader.rows(range(step * rows_per_step + rank * mine, step * rows_per_step + (rank + 1) * mine))
    )
    assert len(ranges) == fragments  # no more than the steps so far and the next ones need
    assert all(stop is not None and start is not None for _, start, stop in ranges)


def test_what_comes_in_the_background_is_what_was_asked_for(near, url, tmp_path):
    loader, other = load(open_store(url, copies=tmp_path / "copies")), load(near)
    for step in (0, 1, 2, 9, 10, 3):  # and a jump throws nothing into disorder
        kwargs = {"rows_per_step": 4, "micro_batch_size": 4}
        rows = loader.micro_batches(step * 4, **kwargs)[1]
        assert [r.hash() for r in rows] == [r.hash() for r in other.micro_batches(step * 4, **kwargs)[1]]


def test_a_read_that_failed_in_the_background_is_told_when_it_is_wanted_and_tried_again(url, tmp_path):
    tokens = open_store(url, copies=tmp_path / "copies").training["math"]._tokens[0]
    kept = []
    spoil(url, "math/00000.tok", lambda content: kept.append(content))
    tokens.read_ahead(0, 5)
    with pytest.raises(
        DataError, match=r"math/00000\.tok: cannot be read \(.*\)\. Check data\.store, your rights, and the"
    ):
        tokens[0:5]
    files, root = fsspec.core.url_to_fs(url)
    files.pipe_file(f"{root}/math/00000.tok", kept[0])
    assert tokens[0:5].tolist() == np.frombuffer(kept[0][:10], "<u2").tolist()


def test_a_file_that_is_cut_while_it_is_read_is_told(url, tmp_path):
    store = open_store(url, copies=tmp_path / "copies")
    spoil(url, "math/00001.tok", lambda content: content[:100])
    tokens = store.training["math"]._tokens[1]
    assert len(tokens[0:50]) == 50
    for ahead in (False, True):
        if ahead:
            tokens.read_ahead(40, 60)
        with pytest.raises(
            DataError,
            match=r"math/00001\.tok: ends at byte 100, and bytes up to 120 were asked for\. The store was changed or not copied",
        ):
            tokens[40:60]


def test_tokens_elsewhere_may_have_four_bytes(tmp_path):
    (tmp_path / "x.tok").write_bytes(np.arange(70_000, 70_100, dtype="<u4").tobytes())
    tokens = RemoteTokens(RemoteFolder(f"file://{tmp_path}"), "x.tok", np.dtype("<u4"))
    tokens.read_ahead(10, 13)
    assert tokens[10:13].tolist() == [70_010, 70_011, 70_012]
    assert tokens[0:2].tolist() == [70_000, 70_001]


@pytest.mark.parametrize("change", [lambda content: content[:-2], lambda content: content + b"xx"])
def test_a_far_file_of_another_size_is_refused_when_the_store_is_opened(url, tmp_path, change):
    """Regression: the message left out the folder, and every source has a 00000.tok."""
    spoil(url, "general/00000.tok", change)
    with pytest.raises(
        DataError, match=r"bytes, the manifest says [\d,]+\. Delete .* copy the store to counting://"
    ) as caught:
        open_store(url, copies=tmp_path / "copies")
    assert caught.value.where == f"{url}/general/00000.tok"


def test_one_flipped_bit_elsewhere_is_found_by_verifying(url, tmp_path):
    """Regression: verifying passed over what lies elsewhere."""
    store = open_store(url, copies=tmp_path / "copies")
    store.verify()
    spoil(url, "math/00001.tok", lambda content: content[:9] + bytes([content[9] ^ 16]) + content[10:])
    with pytest.raises(DataError, match="its checksum is not the manifest's") as caught:
        store.verify()
    assert caught.value.where == f"{url}/math/00001.tok"


def test_one_flipped_bit_in_a_copy_is_refused_with_what_to_delete(url, tmp_path):
    """Regression: it was answered with `havoc data build`, which builds no store elsewhere."""
    store = open_store(url, copies=tmp_path / "copies")
    path = store.folder / "math" / "00000.doc"
    content = bytearray(path.read_bytes())
    content[8] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="its checksum is not the manifest's") as caught:
        open_store(url, copies=tmp_path / "copies")
    assert caught.value.where == str(path)
    assert caught.value.remedy.startswith(f"Delete {store.folder} and try again")


@pytest.mark.parametrize("name", ["manifest.json", "math/00000.tok", "math/00001.doc", "validation/general.jsonl.zst"])
def test_a_missing_file_is_named(url, tmp_path, name):
    spoil(url, name, lambda content: None)
    with pytest.raises(
        DataError, match=r"cannot be read \(.*\)\. Check data\.store, your rights, and the network"
    ) as caught:
        open_store(url, copies=tmp_path / "copies")
    assert caught.value.where == f"{url}/{name}"
    assert not any(path.as_posix().endswith(f"/{name}") for path in (tmp_path / "copies").rglob("*"))


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b"3", b"{}", b'{"sources": {}}', b'{"sources": [1]}'])
def test_a_manifest_that_is_none_is_refused(url, tmp_path, content):
    """Regression: what was no JSON ended in a traceback."""
    spoil(url, "manifest.json", lambda _: content)
    with pytest.raises(DataError, match=r"is no manifest of a token store \(.*\)\. Copy the store again\.") as caught:
        open_store(url, copies=tmp_path / "copies")
    assert caught.value.where == f"{url}/manifest.json"
    assert not (tmp_path / "copies").exists()


def rename_source(values, name):
    values["sources"][name] = values["sources"].pop("math")


def rename_group(values, name):
    values["validation"][name] = values["validation"].pop("domain")


def rename_shard(values, name):
    values["sources"]["math"]["shards"][0]["name"] = name


def rename_file(values, name):
    files = values["sources"]["math"]["shards"][0]["files"]
    files[name] = files.pop(".doc")


def rename_group_without_shards(values, name):
    rename_group(values, name)
    values["validation"][name]["shards"] = []


@pytest.mark.parametrize(
    "change", [rename_source, rename_group, rename_group_without_shards, rename_shard, rename_file]
)
@pytest.mark.parametrize("name", ["../../evil", "/evil", "..", "a/b", "a\0b"])
def test_a_manifest_whose_names_lead_out_of_the_folder_is_refused_before_anything_is_copied(
    url, tmp_path, change, name
):
    """Regression: the held-out text of a group called ../../evil was written outside of the copies."""
    if change in (rename_shard, rename_file) and name == "..":
        name = "../.."  # as a part of a longer name, two dots are only dots

    def rewrite(content):
        values = json.loads(content)
        change(values, name)
        return json.dumps(values).encode()

    spoil(url, "manifest.json", rewrite)
    files, root = fsspec.core.url_to_fs(url)
    for evil in (f"{root}/validation/{name}.jsonl.zst", f"{root}/{name}/00000.doc"):
        files.store[evil] = files.store[f"{root}/validation/general.jsonl.zst"]  # it is there to be fetched
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(
        DataError, match=r"is no manifest of a token store \(.* is no plain name.*\)\. Copy the store again"
    ):
        open_store(url, copies=tmp_path / "copies")
    assert sorted(path for path in tmp_path.rglob("*")) == before
    for evil in (f"{root}/validation/{name}.jsonl.zst", f"{root}/{name}/00000.doc"):
        files.store.pop(evil, None)


def test_a_kind_of_address_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"data\.store: s4://bucket/store is no folder and no URL that fsspec knows \(.*\)\. Name a folder",
    ):
        open_store("s4://bucket/store", copies=tmp_path)


@pytest.mark.parametrize(("missing", "address"), [("s3fs", "s3://bucket/store"), ("fsspec", "memory://store")])
def test_a_missing_package_is_named_with_how_to_install_it(missing, address):
    """Regression: without fsspec itself there was a traceback."""
    program = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "from havoc_core.errors import MissingPackageError\n"
        "from havoc_data.remote import RemoteFolder\n"
        "try:\n"
        f"    RemoteFolder({address!r})\n"
        "except MissingPackageError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.startswith(f"data.store: {address} cannot be read ("), done.stderr
    assert missing in done.stdout
    assert "Install the package that it names: pip install" in done.stdout


def test_a_copy_appears_under_its_name_only_when_it_is_whole(url, tmp_path):
    far = RemoteFolder(url)
    with pytest.raises(DataError, match="cannot be read"):
        far.fetch("math/99999.doc", tmp_path / "x" / "99999.doc")
    assert not (tmp_path / "x" / "99999.doc").exists()
    far.fetch("math/00000.doc", tmp_path / "x" / "00000.doc")
    assert [path.name for path in (tmp_path / "x").iterdir() if not path.name.startswith(".")] == ["00000.doc"]
