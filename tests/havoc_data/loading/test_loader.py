"""Store -> batches: a pure function of (store, plan, seed, slot)."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from havoc_core.errors import ConfigError, DataError
from havoc_core.loss import IGNORE_INDEX
from havoc_data.loading.ledger import EMPTY_CHAIN, batch_hash, extend_chain, row_hash
from havoc_data.loading.loader import Batch, Loader

GROUP_OF = {"math": "domain", "stats": "domain", "general": "general", "dialog": "dialog"}
BOTH = pytest.mark.parametrize("packing", ["best_fit", "concatenate"])


def group_labels(loader, num_rows):
    """[num_rows, 3] label tokens of each row, filed under its group."""
    table = np.zeros((num_rows, 3))
    for number, row in enumerate(loader.rows(range(num_rows))):
        table[number, ["domain", "general", "dialog"].index(GROUP_OF[row.source])] = (row.labels != IGNORE_INDEX).sum()
    return table


@BOTH
@pytest.mark.parametrize("rows_per_step", [4, 8])
def test_the_mixture_is_within_half_a_point_in_every_window_of_100_steps(store, load, packing, rows_per_step):
    window = 100 * rows_per_step
    sums = np.concatenate([np.zeros((1, 3)), group_labels(load(store, packing=packing), 3 * window).cumsum(0)])
    inside = sums[window::1] - sums[:-window]
    shares = inside / inside.sum(1, keepdims=True)
    assert np.abs(shares - [0.6, 0.3, 0.1]).max() < 0.005


@BOTH
def test_the_mixture_holds_even_where_rows_of_a_group_are_half_empty(make_store, load, tmp_path, packing):
    """Regression: documents of 36 to 64 tokens do not share a row of 64, and the shares swung with the luck of the draw."""
    store = make_store(
        tmp_path,
        (("math", "domain", 200, 5, 300), ("general", "general", 150, 36, 64), ("dialog", "dialog", 99, 9, 40)),
    )
    sums = np.concatenate([np.zeros((1, 3)), group_labels(load(store, packing=packing), 1200).cumsum(0)])
    inside = sums[400:] - sums[:-400]
    assert np.abs(inside / inside.sum(1, keepdims=True) - [0.6, 0.3, 0.1]).max() < 0.005


@pytest.mark.parametrize("rows_per_step", [8, 12])
def test_a_step_is_the_same_for_any_number_of_ranks_and_any_split(store, load, rows_per_step):
    loader = load(store)
    whole = [row.hash() for row in loader.rows(range(100, 100 + rows_per_step))]
    for world_size in (1, 2, 4):
        for micro in (1, 2, 3, rows_per_step):
            hashes, inputs = [], []
            for rank in range(world_size):
                batches, rows = loader.micro_batches(
                    100, rows_per_step=rows_per_step, micro_batch_size=micro, rank=rank, world_size=world_size
                )
                hashes += [row.hash() for row in rows]
                inputs += [batch.inputs for batch in batches]
                assert all(1 <= len(batch.inputs) <= micro for batch in batches)
                assert sum(len(batch.lengths) for batch in batches) == rows_per_step // world_size
            assert hashes == whole
            assert np.array_equal(
                np.concatenate(inputs), np.stack([r.inputs for r in loader.rows(range(100, 100 + rows_per_step))])
            )


@BOTH
def test_an_epoch_of_a_source_has_every_label_exactly_once(store, load, packing):
    loader = load(store, packing=packing)
    rows = [row for row in loader.rows(range(1400)) if row.source == "dialog" and row.epoch == 0]
    source = store.training["dialog"]
    assert len(rows) == loader.sources["dialog"].plan.num_rows  # 1,400 slots are more than one epoch of dialog
    assert sorted(row.position for row in rows) == list(range(len(rows)))
    seen = np.sort(np.concatenate([row.labels[row.labels != IGNORE_INDEX] for row in rows]))
    ids = np.concatenate(
        [source.tokens(int(a), int(b)) for a, b in zip(source.offsets()[:-1], source.offsets()[1:], strict=True)]
    )
    assert np.array_equal(seen, np.sort(ids[ids != 0]))  # all but BOS


def test_a_row_is_inputs_and_the_tokens_that_follow_them_inside_documents(store, load):
    for row in load(store).rows(range(200)):
        assert row.inputs.shape == row.labels.shape == (64,)
        at = 0
        for length in row.lengths:
            assert np.array_equal(row.inputs[at + 1 : at + length], row.labels[at : at + length - 1])
            assert not (row.labels[at : at + length] == 0).any()  # BOS is never a label
            at += length
        assert (row.inputs[at:] == 2).all()
        assert (row.labels[at:] == IGNORE_INDEX).all()


def test_the_order_of_asking_changes_nothing(store, load):
    one, other = load(store), load(store)
    far = [row.hash() for row in other.rows(range(5000, 5010))]
    assert [row.hash() for row in one.rows(range(5000, 5010))] == far
    assert [row.hash() for row in other.rows(range(20))][7] == one.rows(range(7, 8))[0].hash()
    assert [row.slot for row in one.rows(range(3, 9))] == list(range(3, 9))
    assert one.rows(range(5, 5)) == []


def test_slot_ten_to_the_twelve_is_at_once_there(store, load):
    rows = load(store).rows(range(10**12, 10**12 + 4))
    assert [row.slot for row in rows] == [10**12 + i for i in range(4)]
    assert min(row.epoch for row in rows) > 10**8


def test_every_epoch_and_every_seed_has_its_own_order(store, load):
    def order(loader, epoch):
        return [r.position for r in loader.rows(range(2400)) if r.source == "dialog" and r.epoch == epoch]

    loader = load(store)
    assert order(loader, 0) != order(loader, 1)
    assert sorted(order(loader, 0)) == sorted(order(loader, 1))
    assert order(loader, 0) != order(load(store, seed=43), 0)
    assert order(loader, 0) == order(load(store), 0)


def test_inside_a_group_sources_share_by_their_tokens(store, load):
    counts = load(store).labels_by_source(range(6000))
    tokens = {name: load(store).sources[name].plan.num_labels for name in ("math", "stats")}
    wanted = tokens["math"] / sum(tokens.values())
    assert counts["math"] / (counts["math"] + counts["stats"]) == pytest.approx(wanted, abs=0.003)


def test_weights_say_otherwise(store, load):
    counts = load(store, weights={"math": 0.25}).labels_by_source(range(6000))
    assert counts["math"] / (counts["math"] + counts["stats"]) == pytest.approx(0.25, abs=0.003)
    total = sum(counts.values())
    assert (counts["math"] + counts["stats"]) / total == pytest.approx(0.6, abs=0.003)


def test_counting_without_reading_gives_what_reading_gives(store, load):
    loader = load(store)
    read = dict.fromkeys(GROUP_OF, 0)
    for row in loader.rows(range(37, 300)):
        read[row.source] += int((row.labels != IGNORE_INDEX).sum())
    assert loader.labels_by_source(range(37, 300)) == read


def test_planned_shares_are_the_mixture(store, load):
    shares = load(store).planned_shares()
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["math"] + shares["stats"] == pytest.approx(0.6)
    assert (shares["general"], shares["dialog"]) == (pytest.approx(0.3), pytest.approx(0.1))


@pytest.mark.parametrize("num_slots", [0, 1, 17, 500, 4096, 4097, 9000])
def test_epochs_are_counted_from_the_schedule(store, load, num_slots):
    loader = load(store)
    rows = loader.rows(range(num_slots))
    for name, times in loader.epochs_after(num_slots).items():
        assert times == sum(row.source == name for row in rows) / loader.sources[name].plan.num_rows


def test_a_group_without_a_share_is_never_shown(store, load):
    loader = load(store, ratios={"domain": 0.5, "general": 0.5, "dialog": 0.0})
    assert {row.source for row in loader.rows(range(500))} == {"math", "stats", "general"}
    assert "dialog" not in loader.validation_batches(16, 4)


def test_a_group_without_text_is_refused(make_store, load, tmp_path):
    store = make_store(tmp_path, (("math", "domain", 50, 5, 90),))
    with pytest.raises(DataError, match="group general: has no text in the store. Add text, or set its ratio to 0."):
        load(store)


def test_weights_that_leave_nothing_are_refused(store, load):
    with pytest.raises(DataError, match="data.weights: leave nothing for the sources of a group. Give at least one"):
        load(store, weights={"math": 0.0, "stats": 0.0})


@pytest.mark.parametrize("weight", [1.0, 2.5, 1.0 - 1e-12])
def test_weights_that_leave_nothing_for_a_source_without_one_are_refused(store, load, weight):
    """Regression: the source was dropped without a word."""
    with pytest.raises(ConfigError, match="so stats would get nothing of the group") as caught:
        load(store, weights={"math": weight})
    assert caught.value.where == "data.weights"
    assert caught.value.found.startswith(f"those of math add up to {weight:g}, so")
    assert caught.value.remedy == "Lower the named weights below 1 in sum, or give stats a weight (0 leaves it out)."
    assert load(store, weights={"math": weight, "stats": 3.0}).planned_shares()["stats"] > 0


def test_a_weight_of_0_leaves_a_source_out_and_it_is_seen_0_times(store, load):
    loader = load(store, weights={"math": 1.0, "stats": 0.0})
    assert loader.planned_shares()["stats"] == 0.0
    epochs = loader.epochs_after(600)
    assert epochs["stats"] == 0.0
    assert epochs["math"] > 0
    assert loader.epochs_after(0) == dict.fromkeys(GROUP_OF, 0.0)


def test_validation_rows_are_always_the_same_and_shared_by_weight(store, load):
    one = load(store).validation_batches(20, 4)
    other = load(store, seed=7).validation_batches(20, 4)
    for group, wanted in (("domain", 12), ("general", 6), ("dialog", 4)):  # 2 rows of dialog are less than one batch
        assert sum(len(batch.inputs) for batch in one[group]) == min(
            wanted, load(store).validation[group].plan.num_rows
        )
        for a, b in zip(one[group], other[group], strict=True):
            assert np.array_equal(a.inputs, b.inputs)
    everything = load(store).validation_batches(10**6, 4)
    for group, batches in everything.items():
        assert sum(len(batch.inputs) for batch in batches) == load(store).validation[group].plan.num_rows
        labels = np.concatenate([batch.labels.ravel() for batch in batches])
        assert (labels != IGNORE_INDEX).sum() == load(store).validation[group].plan.num_labels


def test_no_held_out_token_is_in_a_training_row(store, load):
    assert set(load(store).sources) == {"math", "stats", "general", "dialog"}
    assert set(load(store).validation) == {"domain", "general", "dialog"}


def test_the_plan_has_an_id(store, load):
    one = load(store).plan.id
    assert one == load(store).plan.id
    for change in (
        {"packing": "concatenate"},
        {"row_length": 32},
        {"weights": {"math": 0.1}},
        {"ratios": {"domain": 1.0}},
    ):
        assert load(store, **change).plan.id != one


def test_rows_per_epoch_counts_every_source(store, load):
    loader = load(store)
    assert loader.rows_per_epoch == sum(source.plan.num_rows for source in loader.sources.values())


def test_a_row_hash_is_of_tokens_labels_and_lengths(store, load):
    row = load(store).rows(range(1))[0]
    digest = hashlib.blake2b(digest_size=16)
    for part in (row.inputs, row.labels, np.array(row.lengths)):
        digest.update(part.astype("<i8").tobytes())
    assert row.hash() == digest.digest()
    for array in (row.inputs, row.labels):
        changed = array.copy()
        changed[3] += 1
        pair = (changed, row.labels) if array is row.inputs else (row.inputs, changed)
        assert row_hash(*pair, row.lengths) != row.hash()
    assert row_hash(row.inputs, row.labels, [sum(row.lengths)]) != row.hash() or len(row.lengths) == 1


def test_batch_and_chain_hashes_are_a_format():
    rows = [bytes([i]) * 16 for i in range(3)]
    batch = hashlib.blake2b(b"".join(rows), digest_size=16).digest()
    assert batch_hash(rows) == batch
    assert batch_hash(rows[::-1]) != batch
    assert extend_chain(EMPTY_CHAIN, batch) == hashlib.blake2b(bytes(16) + batch, digest_size=16).digest()
    assert extend_chain(extend_chain(EMPTY_CHAIN, batch), batch_hash(rows[:1])) != extend_chain(EMPTY_CHAIN, batch)


def test_a_batch_stacks_its_rows(store, load):
    rows = load(store).rows(range(3))
    batch = Batch.of_rows(rows)
    assert batch.inputs.shape == batch.labels.shape == (3, 64)
    assert batch.lengths == tuple(row.lengths for row in rows)


def test_a_source_that_was_held_out_whole_is_left_out_and_breaks_nothing(make_store, load, tmp_path):
    """A source whose few documents all went to validation has no training tokens, and is not in the manifest."""
    store = make_store(
        tmp_path, (("math", "domain", 50, 5, 90), ("general", "general", 50, 5, 90), ("dialog", "dialog", 50, 5, 90))
    )
    assert load(store, weights={"stats": 0.5}).planned_shares()["math"] == pytest.approx(0.6)


def stage_of(store, load, first_slot):
    """The loader of a run that began with another store."""
    return Loader(store, load(store).plan, seed=42, token_bytes=[b"x"] * 256, pad_id=2, first_slot=first_slot)


@pytest.mark.parametrize("first_slot", [1, 37, 4096])
def test_the_rows_of_a_stage_are_those_of_its_store_from_its_own_beginning(store, load, first_slot):
    whole, stage = load(store), stage_of(store, load, first_slot)
    rows = stage.rows(range(first_slot, first_slot + 50))
    assert [row.hash() for row in rows] == [row.hash() for row in whole.rows(range(50))]
    assert [row.slot for row in rows] == list(range(first_slot, first_slot + 50))
    later = range(first_slot + 7, first_slot + 20)
    assert stage.labels_by_source(later) == whole.labels_by_source(range(7, 20))
    _, mine = stage.micro_batches(first_slot + 8, rows_per_step=4, micro_batch_size=2, rank=1, world_size=2)
    assert [row.hash() for row in mine] == [row.hash() for row in whole.rows(range(10, 12))]


def test_epochs_of_a_stage_are_counted_from_its_beginning(store, load):
    assert stage_of(store, load, 300).epochs_after(800) == load(store).epochs_after(500)
    assert stage_of(store, load, 300).epochs_after(300) == dict.fromkeys(GROUP_OF, 0.0)
    assert stage_of(store, load, 300).epochs_after(10) == dict.fromkeys(GROUP_OF, 0.0)


@pytest.mark.parametrize("slots", [range(0, 4), range(29, 31), range(29, 30)])
def test_slots_of_an_earlier_stage_are_refused(store, load, slots):
    with pytest.raises(
        DataError,
        match=f"slot {slots.start}: belongs to an earlier store; the one that is open begins at slot 30. Open the store that",
    ):
        stage_of(store, load, 30).rows(slots)
    assert stage_of(store, load, 30).rows(range(5, 5)) == []


def test_held_out_rows_are_the_same_in_whatever_stage(store, load):
    one, other = (stage_of(store, load, slot).validation_batches(20, 4) for slot in (0, 99))
    assert one.keys() == other.keys()
    for group, batches in one.items():
        for a, b in zip(batches, other[group], strict=True):
            assert np.array_equal(a.inputs, b.inputs)
