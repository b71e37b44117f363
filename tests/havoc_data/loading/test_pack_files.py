"""Pack plans on disk: the same as those that were worked out, or worked out again."""

from __future__ import annotations

import json
import multiprocessing
import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from havoc_data.loading.pack_files import kept_plan, pack_key
from havoc_data.loading.packing import boundary_levels, plan_rows

ARRAYS = ("row_starts", "first_token", "num_pairs", "labels", "by_labels")
LEVELS = boundary_levels([b"x"] * 256)


def make(store, *, packing="best_fit", row_length=64):
    return plan_rows(store.training["math"], row_length=row_length, levels=LEVELS, packing=packing)


def same(one, other):
    return one.num_labels == other.num_labels and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        and getattr(one, name).dtype == getattr(other, name).dtype
        for name in ARRAYS
    )


def counted(calls, plan):
    calls.append(1)
    return plan


def refuse():
    raise AssertionError("the plan was there and was made again")


@pytest.mark.parametrize("packing", ["best_fit", "concatenate"])
def test_a_plan_that_was_kept_is_the_one_that_was_made(store, tmp_path, packing):
    made = make(store, packing=packing)
    assert same(kept_plan(tmp_path / "plans", "key", lambda: made), made)
    assert same(kept_plan(tmp_path / "plans", "key", refuse), made)
    assert sorted(path.name for path in (tmp_path / "plans").iterdir()) == ["key"]


def test_a_plan_lies_on_disk_and_not_in_memory(store, tmp_path):
    """Whether it was made in this process or not."""
    for _ in range(2):
        plan = kept_plan(tmp_path, "key", partial(make, store))
        for name in ARRAYS:
            array = getattr(plan, name)
            assert type(array) is np.ndarray  # slices of numpy's memmap class are several times slower
            assert isinstance(array.base, np.memmap), name
            assert not array.flags.writeable


def test_a_plan_without_rows_is_kept_too(store, tmp_path):
    empty = replace(
        make(store), **{name: np.zeros(int(name == "row_starts"), np.int64) for name in ARRAYS}, num_labels=0
    )
    kept_plan(tmp_path, "key", lambda: empty)
    assert kept_plan(tmp_path, "key", refuse).num_rows == 0


@pytest.mark.parametrize("name", [*(f"{name}.npy" for name in ARRAYS), "checksums.json"])
def test_a_flipped_bit_is_found_and_the_plan_is_made_again(store, tmp_path, name):
    """Regression: the number of labels stood in checksums.json, and a flipped digit moved the mixture."""
    made = make(store)
    kept_plan(tmp_path, "key", lambda: made)
    good = (tmp_path / "key" / name).read_bytes()
    draw = random.Random(name)
    for at in draw.sample(range(len(good)), min(len(good), 60)):
        damaged = bytearray(good)
        damaged[at] ^= 1 << draw.randrange(8)
        (tmp_path / "key" / name).write_bytes(damaged)
        calls = []
        assert same(kept_plan(tmp_path, "key", partial(counted, calls, made)), made)
        # Between the values of the JSON file a bit may turn one white space into another.
        assert calls or name == "checksums.json", at
        assert same(kept_plan(tmp_path, "key", refuse), made)  # and it is whole again


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"row_starts": 1}', "\xff"])
def test_checksums_that_say_nothing_are_no_checksums(store, tmp_path, text):
    made = make(store)
    kept_plan(tmp_path, "key", lambda: made)
    (tmp_path / "key" / "checksums.json").write_text(text, encoding="latin-1")
    assert same(kept_plan(tmp_path, "key", lambda: made), made)
    assert same(kept_plan(tmp_path, "key", refuse), made)


@pytest.mark.parametrize("name", [*(f"{name}.npy" for name in ARRAYS), "checksums.json"])
def test_a_file_that_is_missing_or_cut_makes_the_plan_again(store, tmp_path, name):
    made = make(store)
    for spoil in (lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-3])):
        kept_plan(tmp_path, "key", lambda: made)
        spoil(tmp_path / "key" / name)
        assert same(kept_plan(tmp_path, "key", lambda: made), made)
        assert same(kept_plan(tmp_path, "key", refuse), made)


def test_an_array_of_objects_is_never_unpickled(store, tmp_path):
    """A pickle runs what it likes; checksums beside it are no proof of where it comes from."""
    import hashlib

    made = make(store)
    kept_plan(tmp_path, "key", lambda: made)
    np.save(tmp_path / "key" / "labels.npy", np.array([{}], dtype=object), allow_pickle=True)
    path = tmp_path / "key" / "checksums.json"
    sums = json.loads(path.read_text())
    sums["labels"] = hashlib.sha256((tmp_path / "key" / "labels.npy").read_bytes()).hexdigest()
    path.write_text(json.dumps(sums))
    assert same(kept_plan(tmp_path, "key", lambda: made), made)


def test_where_nothing_can_be_written_the_plan_stays_in_memory(store, tmp_path):
    (tmp_path / "file").touch()
    made = make(store)
    for _ in range(2):
        assert kept_plan(tmp_path / "file" / "plans", "key", lambda: made) is made
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_plan_that_another_process_is_using_survives_being_made_again(store, tmp_path):
    plan = kept_plan(tmp_path, "key", partial(make, store))
    (tmp_path / "key" / "checksums.json").unlink()
    again = kept_plan(tmp_path, "key", partial(make, store))
    assert same(plan, again)


def keep(folder, key, start, answers):
    """In a process of its own: the plan of numbers 0 to 9,999."""
    from havoc_data.loading.packing import PackPlan

    numbers = np.arange(10_000)
    plan = PackPlan(numbers, numbers, numbers.astype(np.int32), numbers.astype(np.int32), numbers, int(numbers.sum()))
    start.wait()
    for turn in range(20):
        found = kept_plan(folder, f"{key}{turn}", lambda: plan)
        assert same(found, plan)
    answers.put("whole")


def test_several_processes_may_make_the_same_plan_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(4), context.Queue()
    workers = [context.Process(target=keep, args=(tmp_path, "key", start, answers)) for _ in range(4)]
    for worker in workers:
        worker.start()
    assert [answers.get(timeout=60) for _ in workers] == ["whole"] * 4
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"key{turn}" for turn in range(20))


def test_the_key_is_of_everything_that_the_rows_depend_on():
    def key(checksums=("a", "b"), row_length=64, packing="best_fit", levels=LEVELS):
        return pack_key(list(checksums), row_length=row_length, packing=packing, levels=levels)

    others = [
        key(checksums=("a", "c")), key(checksums=("b", "a")), key(row_length=65), key(packing="concatenate"),
        key(levels=boundary_levels([b"x"] * 255 + [b"\n"])), key(levels=LEVELS[:-1]), key(checksums=("ab",)),
    ]  # fmt: skip
    assert len({key(), *others}) == 8
    assert key() == key()


def test_a_loader_keeps_its_plans_beside_the_store_one_for_each_way_of_packing(make_store, load, tmp_path):
    store = make_store(tmp_path)

    def plans():
        return {path.name for path in (tmp_path / ".plans").iterdir()}

    first = [row.hash() for row in load(store).rows(range(20))]
    one = plans()
    assert len(one) == 7  # 4 sources, 3 held-out groups
    assert [row.hash() for row in load(store).rows(range(20))] == first
    assert plans() == one
    load(store, row_length=32)
    load(store, packing="concatenate")
    assert len(plans()) == 21
    assert type(store)(tmp_path).id == store.id  # and the store does not mind them


def test_damaged_plans_change_no_row(make_store, load, tmp_path):
    store = make_store(tmp_path)
    first = [row.hash() for row in load(store).rows(range(200))]
    for path in (tmp_path / ".plans").rglob("*.npy"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    assert [row.hash() for row in load(store).rows(range(200))] == first


def test_a_store_that_cannot_be_written_to_is_read_all_the_same(make_store, load, tmp_path):
    store = make_store(tmp_path)
    (tmp_path / ".plans").touch()
    other = make_store(tmp_path / "other")
    assert [r.hash() for r in load(store).rows(range(50))] == [r.hash() for r in load(other).rows(range(50))]
