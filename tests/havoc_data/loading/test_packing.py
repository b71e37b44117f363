"""Documents -> rows: every token is a label exactly once, nothing is discarded, fragments fit."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_data.loading.packing import boundary_levels, plan_rows

LEVELS = np.zeros(100, dtype=np.uint8)
LEVELS[10], LEVELS[20] = 1, 2  # a line end, a blank line
SIZES = st.lists(st.integers(2, 60), min_size=1, max_size=40)
BOTH = pytest.mark.parametrize("packing", ["best_fit", "concatenate"])


def source_of(documents):
    """What packing needs of a stored source."""
    tokens = np.concatenate([np.array(ids, dtype=np.uint16) for ids in documents])
    offsets = np.cumsum([0, *(len(ids) for ids in documents)]).astype(np.uint64)
    return SimpleNamespace(
        num_shards=1,
        offsets_of_shard=lambda number: offsets,
        tokens=lambda start, stop: tokens[start:stop],
        all=tokens,
    )


def shards_of(documents, per_shard):
    """The same, in shards of so many documents."""
    source = source_of(documents)
    offsets = source.offsets_of_shard(0)
    cuts = [*range(0, len(documents), per_shard), len(documents)]
    source.num_shards = len(cuts) - 1
    source.offsets_of_shard = lambda number: offsets[cuts[number] : cuts[number + 1] + 1]
    return source


def plan_of(documents, row_length, packing):
    return plan_rows(source_of(documents), row_length=row_length, levels=LEVELS, packing=packing)


@BOTH
@settings(max_examples=80, deadline=None)
@given(sizes=SIZES, row_length=st.integers(8, 40), seed=st.integers(0, 99))
def test_every_token_but_bos_is_a_label_exactly_once_an_epoch(packing, sizes, row_length, seed):
    draw = np.random.default_rng(seed)
    documents = [draw.choice([1, 2, 3, 10, 20], size) for size in sizes]
    plan = plan_of(documents, row_length, packing)
    starts = np.cumsum([0, *sizes])
    labels = sorted(t for a, n in zip(plan.first_token, plan.num_pairs, strict=True) for t in range(a + 1, a + n + 1))
    assert labels == [t for a, b in zip(starts[:-1], starts[1:], strict=True) for t in range(a + 1, b)]
    assert plan.num_labels == sum(sizes) - len(sizes)
    for begin, end in zip(plan.row_starts[:-1], plan.row_starts[1:], strict=True):
        assert 0 < plan.num_pairs[begin:end].sum() <= row_length
    assert (plan.num_pairs > 0).all()
    inside = np.searchsorted(starts, plan.first_token, side="right")
    assert (plan.first_token + plan.num_pairs < starts[inside]).all()  # no fragment leaves its document


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, row_length=st.integers(8, 40))
def test_one_after_another_fills_every_row_but_the_last(sizes, row_length):
    plan = plan_of([[1] * size for size in sizes], row_length, "concatenate")
    filled = np.add.reduceat(plan.num_pairs, plan.row_starts[:-1])
    assert (filled[:-1] == row_length).all()
    assert plan.num_rows == -(-plan.num_labels // row_length)
    assert (np.diff(plan.first_token) > 0).all()


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, row_length=st.integers(8, 40))
def test_best_fit_never_opens_a_row_while_an_open_one_has_room(sizes, row_length):
    plan = plan_of([[1] * size for size in sizes], row_length, "best_fit")
    filled = np.add.reduceat(plan.num_pairs, plan.row_starts[:-1])
    # Of two rows, the smallest fragment of the later one did not fit into the earlier one when it came.
    assert plan.num_rows < 2 * max(1, plan.num_labels / row_length) + 1
    assert (filled <= row_length).all()


def test_best_fit_takes_the_fullest_row_that_still_has_room():
    documents = [[1] * (pairs + 1) for pairs in (6, 5, 4, 3, 2)]  # rows of 10: 6+4, 5+3+2
    plan = plan_of(documents, 10, "best_fit")
    rows = [plan.num_pairs[a:b].tolist() for a, b in zip(plan.row_starts[:-1], plan.row_starts[1:], strict=True)]
    assert rows == [[6, 4], [5, 3, 2]]


def test_short_documents_are_never_cut_by_best_fit():
    sizes = [3, 30, 17, 33, 9, 21] * 10
    plan = plan_of([[1] * size for size in sizes], 32, "best_fit")
    assert sorted(plan.num_pairs.tolist()) == sorted(size - 1 for size in sizes)


def test_many_documents_fill_their_rows_to_98_percent():
    sizes = np.random.default_rng(0).integers(20, 300, 3000)
    plan = plan_of([[1] * int(size) for size in sizes], 256, "best_fit")
    assert plan.num_labels / (plan.num_rows * 256) > 0.98


def cuts(tokens, row_length):
    return np.sort(plan_of([tokens], row_length, "best_fit").first_token).tolist()


def test_a_long_document_is_cut_at_a_blank_line_before_a_line_end():
    tokens = [1] * 40
    tokens[12], tokens[15] = 20, 10
    assert cuts(tokens, 16)[1] == 12
    tokens[12] = 1
    assert cuts(tokens, 16)[1] == 15
    tokens[15] = 1
    assert cuts(tokens, 16)[1] == 16  # no boundary: at T


def test_the_last_boundary_that_fits_is_taken_and_none_in_the_first_half():
    tokens = [1] * 40
    tokens[5] = tokens[10] = tokens[14] = 20
    assert cuts(tokens, 16)[1] == 14
    tokens[10] = tokens[14] = 1
    assert cuts(tokens, 16)[1] == 16


def test_a_fragment_begins_with_the_token_that_the_one_before_ended_with():
    plan = plan_of([list(range(1, 31))], 8, "best_fit")
    order = np.argsort(plan.first_token)
    first, pairs = plan.first_token[order], plan.num_pairs[order]
    assert (first[1:] == first[:-1] + pairs[:-1]).all()
    assert first[0] == 0
    assert first[-1] + pairs[-1] == 29


def test_a_document_of_exactly_one_row_is_not_cut():
    assert cuts([1] * 17, 16) == [0]
    assert len(cuts([1] * 18, 16)) == 2


def test_levels_come_from_the_bytes_of_tokens():
    assert boundary_levels([b"", b"a\n\nb", b"\n", b" x", b"\r\n", b"\n\n"]).tolist() == [0, 2, 1, 0, 1, 2]


@BOTH
def test_the_same_documents_always_give_the_same_rows(packing):
    documents = [[1] * int(size) for size in np.random.default_rng(1).integers(2, 90, 200)]
    one, other = plan_of(documents, 32, packing), plan_of(documents, 32, packing)
    assert np.array_equal(one.first_token, other.first_token)
    assert np.array_equal(one.row_starts, other.row_starts)


@BOTH
@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, per_shard=st.integers(1, 9), seed=st.integers(0, 99))
def test_how_documents_lie_in_shards_changes_no_row(packing, sizes, per_shard, seed):
    draw = np.random.default_rng(seed)
    documents = [draw.choice([1, 2, 3, 10, 20], size) for size in sizes]
    one = plan_of(documents, 16, packing)
    other = plan_rows(shards_of(documents, per_shard), row_length=16, levels=LEVELS, packing=packing)
    for name in ("row_starts", "first_token", "num_pairs", "labels", "by_labels"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.num_labels == other.num_labels


@BOTH
@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, per_shard=st.integers(1, 9), block_tokens=st.integers(1, 200))
def test_shards_packed_a_few_at_a_time_lose_and_repeat_nothing(packing, sizes, per_shard, block_tokens):
    source = shards_of([[1] * size for size in sizes], per_shard)
    plan = plan_rows(source, row_length=16, levels=LEVELS, packing=packing, block_tokens=block_tokens)
    starts = np.cumsum([0, *sizes])
    labels = sorted(t for a, n in zip(plan.first_token, plan.num_pairs, strict=True) for t in range(a + 1, a + n + 1))
    assert labels == [t for a, b in zip(starts[:-1], starts[1:], strict=True) for t in range(a + 1, b)]
    assert plan.row_starts[0] == 0
    assert plan.row_starts[-1] == len(plan.num_pairs)
    assert (plan.labels == np.add.reduceat(plan.num_pairs, plan.row_starts[:-1])).all()
    assert (np.diff(plan.labels[plan.by_labels]) >= 0).all()
    assert sorted(plan.by_labels.tolist()) == list(range(plan.num_rows))


def test_a_block_is_packed_without_those_that_follow():
    """Otherwise all shards would have to be looked at at once."""
    documents = [[1] * size for size in (9, 5, 30, 7, 12, 3, 25, 11)]
    together = plan_rows(shards_of(documents, 2), row_length=16, levels=LEVELS, packing="best_fit", block_tokens=1)
    first_tokens, at = [], 0
    for i in range(0, 8, 2):
        alone = plan_of(documents[i : i + 2], 16, "best_fit")
        first_tokens += (alone.first_token + at).tolist()
        at += sum(len(ids) for ids in documents[i : i + 2])
    assert together.first_token.tolist() == first_tokens


def test_a_source_without_shards_has_no_rows():
    source = source_of([[1, 1]])
    source.num_shards = 0
    plan = plan_rows(source, row_length=16, levels=LEVELS, packing="best_fit")
    assert (plan.num_rows, plan.num_labels, len(plan.first_token)) == (0, 0, 0)


def test_the_arrays_have_the_types_that_they_are_said_to_have():
    plan = plan_of([[1] * 40, [1] * 9], 16, "best_fit")
    kinds = {
        name: getattr(plan, name).dtype.name
        for name in ("row_starts", "first_token", "num_pairs", "labels", "by_labels")
    }
    assert kinds == {
        "row_starts": "int64", "first_token": "int64", "num_pairs": "int32", "labels": "int32", "by_labels": "int64",
    }  # fmt: skip
