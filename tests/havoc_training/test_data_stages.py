"""A run whose text grows: each store is a stage, and what was learnt before is never altered."""

from __future__ import annotations

import json
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch

from havoc_core.errors import CheckpointError, DataError
from havoc_core.tokenizer import Tokenizer
from havoc_data.loading.ledger import EMPTY_CHAIN, batch_hash, extend_chain
from havoc_data.prepare.build import open_prepared
from havoc_training import build
from havoc_training.checkpointing import SavedRun
from havoc_training.data_stages import make_loader, saved_stages, staged_loader, stages_of

A = {"from_slot": 0, "store_id": "a", "plan_id": "p"}
B = {"from_slot": 40, "store_id": "b", "plan_id": "p"}


def stage(slot, store_id, plan_id="p"):
    return {"from_slot": slot, "store_id": store_id, "plan_id": plan_id}


def test_a_run_that_starts_has_one_stage():
    for growing in (False, True):
        assert stages_of("a", "p", earlier=[], next_slot=0, growing=growing) == (A,)


@pytest.mark.parametrize(
    ("store_id", "plan_id", "earlier", "next_slot", "wanted"),
    [
        ("a", "p", [A], 40, (A,)),  # nothing has changed
        ("b", "p", [A], 40, (A, B)),  # the text has
        ("a", "q", [A], 40, (A, stage(40, "a", "q"))),  # the mixture has
        ("b", "p", [A, B], 60, (A, B)),  # inside the second stage
        ("c", "p", [A, B], 60, (A, B, stage(60, "c"))),
        ("c", "p", [A, B], 40, (A, stage(40, "c"))),  # the second stage was begun and never learnt from
        ("a", "p", [A, B], 60, (A, B, stage(60, "a"))),  # the text of the first again: a stage of its own
        ("b", "p", [A], 0, (stage(0, "b"),)),
    ],
)
def test_another_store_begins_a_stage_where_the_run_stands(store_id, plan_id, earlier, next_slot, wanted):
    assert stages_of(store_id, plan_id, earlier=earlier, next_slot=next_slot, growing=True) == wanted


def test_where_the_text_may_not_grow_the_last_stage_goes_on():
    """Another store is refused elsewhere, with a message; here nothing may move."""
    assert stages_of("c", "q", earlier=[A, B], next_slot=60, growing=False) == (A, B)


GROWN = {
    "growing": True,
    "sources": [
        {"kind": "dummy", "name": group, "group": group, "options": {"documents": 200, "words": 100, "seed": seed}}
        for seed, group in enumerate(("domain", "general", "dialog"))
    ],
}


LONGER = {"max_steps": 9, "data": GROWN}
"""Settings with which the runs below go on."""


def state_of(run, step):
    return json.loads((run.checkpoints / f"checkpoint_step_{step}" / "training_state.json").read_text())


def weights_of(run, step):
    return torch.load(run.checkpoints / f"checkpoint_step_{step}" / "model.pt", weights_only=True)


def lines_of(run):
    lines = [json.loads(line) for line in (run.folder / "logs" / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train"]


@pytest.fixture(scope="module")
def begun_folder(run_in, prepared, tmp_path_factory):
    """A run of 3 steps of 4 rows. Not to be changed."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    shutil.copytree(prepared, folder)
    run_in(folder).trainer(max_steps=3, save_every_n_steps=1, keep_last_n_checkpoints=9).fit()
    return folder


@pytest.fixture(scope="module")
def grown_folder(run_in, begun_folder, tmp_path_factory):
    """The same run, gone on to step 9 with a text that had grown. Not to be changed."""
    folder = tmp_path_factory.mktemp("grown") / "run"
    shutil.copytree(begun_folder, folder)
    run_in(folder).resumed(keep_last_n_checkpoints=9, **LONGER).fit()
    return folder


@pytest.fixture
def begun(run_in, begun_folder, tmp_path):
    shutil.copytree(begun_folder, tmp_path / "run")
    return run_in(tmp_path / "run")


@pytest.fixture
def grown(run_in, grown_folder, tmp_path):
    shutil.copytree(grown_folder, tmp_path / "grown")
    return run_in(tmp_path / "grown")


@pytest.fixture
def begun_and_grown(begun, grown_folder):
    """A run of 3 steps, whose text has grown and been built anew already."""
    for part in ("corpus", "store", "tokenizer"):
        shutil.rmtree(begun.folder / part)
        shutil.copytree(grown_folder / part, begun.folder / part)
    return begun


def stop_at(step):
    """An observer that asks the run to stop, as SIGTERM does."""

    def nothing(*record):
        return None

    def stepped(record):
        if record.step == step:
            signal.raise_signal(signal.SIGTERM)

    return SimpleNamespace(started=nothing, validated=nothing, summarized=nothing, closed=nothing, stepped=stepped)


def test_a_run_goes_on_with_a_text_that_has_grown_and_says_what_it_learnt_when(grown, begun):
    first = state_of(begun, 3)["resolved"]["data_stages"]
    state = state_of(grown, 9)
    stages = state["resolved"]["data_stages"]
    assert [each["from_slot"] for each in stages] == [0, 12]
    assert stages[0] == first[0]
    now = open_prepared(grown.config(**LONGER)).store.id
    assert state["identity"]["store_id"] == stages[1]["store_id"] == now != stages[0]["store_id"]
    assert state["next_slot"] == 36
    assert [(line["slots"], line["first_slot"]) for line in lines_of(grown)] == [
        ([slot, slot + 4], 0 if slot < 12 else 12) for slot in range(0, 36, 4)
    ]


def test_the_tokenizer_stays(grown, begun):
    """Ids would mean something else to the model that learnt them. A new run on the same text has another."""
    one, other = (Tokenizer.load(run.folder / "tokenizer").fingerprint() for run in (grown, begun))
    assert one == other
    assert open_prepared(grown.config(**LONGER)).store.manifest["tokenizer"] == one


def test_the_chain_of_hashes_goes_through_all_stages(grown, begun):
    old, new = (make_loader(run.config(), open_prepared(run.config())) for run in (begun, grown))
    slots = [*((old, slot) for slot in (0, 4, 8)), *((new, slot) for slot in range(0, 24, 4))]
    chain = EMPTY_CHAIN
    for loader, slot in slots:  # of the new store from its own beginning
        chain = extend_chain(chain, batch_hash([row.hash() for row in loader.rows(range(slot, slot + 4))]))
    assert state_of(grown, 9)["chain"] == chain.hex()


def test_a_run_that_is_stopped_inside_its_second_stage_ends_with_the_same_bits(begun_and_grown, grown):
    run = begun_and_grown
    trainer = run.resumed(**LONGER)
    trainer.observers = [*trainer.observers, stop_at(5)]
    trainer.fit()
    again = run.resumed(**LONGER)
    assert again.state.step == 5
    again.fit()
    assert state_of(run, 9)["chain"] == state_of(grown, 9)["chain"]
    assert state_of(run, 9)["resolved"]["data_stages"] == state_of(grown, 9)["resolved"]["data_stages"]
    one, other = weights_of(run, 9), weights_of(grown, 9)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_going_back_before_the_text_grew_begins_the_new_stage_there(grown):
    trainer = grown.resumed("checkpoint_step_2", keep_last_n_checkpoints=9, **LONGER)
    assert trainer.loader.first_slot == 8
    trainer.fit()
    assert [each["from_slot"] for each in state_of(grown, 9)["resolved"]["data_stages"]] == [0, 8]


def test_without_growing_a_run_goes_on_in_the_stage_that_it_was_in(grown):
    """The setting is for beginning a stage; one that was begun needs it no more."""
    trainer = grown.resumed(max_steps=12, data={**GROWN, "growing": False})
    assert trainer.loader.first_slot == 12
    trainer.fit()
    assert len(state_of(grown, 12)["resolved"]["data_stages"]) == 2


def test_without_growing_a_text_that_has_grown_is_refused_and_the_setting_is_named(begun):
    before = (begun.folder / "store" / "manifest.json").read_bytes()
    with pytest.raises(
        CheckpointError, match="data: the text or its settings have changed since the checkpoint"
    ) as caught:
        begun.resumed(max_steps=6, data={**GROWN, "growing": False})
    assert "let the run learn from the new text from here on (--data.growing true)" in caught.value.remedy
    assert (begun.folder / "store" / "manifest.json").read_bytes() == before


def test_growing_does_not_excuse_another_seed(begun_and_grown):
    with pytest.raises(CheckpointError, match="belongs to another run: seed is 7, was 42"):
        begun_and_grown.resumed(seed=7, **LONGER)


def test_a_text_that_did_not_grow_begins_nothing_and_builds_nothing(begun):
    before = (begun.folder / "store" / "manifest.json").stat().st_mtime_ns
    begun.resumed(max_steps=6, data={"growing": True}).fit()
    assert len(state_of(begun, 6)["resolved"]["data_stages"]) == 1
    assert (begun.folder / "store" / "manifest.json").stat().st_mtime_ns == before


def test_rows_before_a_stage_are_refused_by_its_loader(run):
    data = open_prepared(run.config())
    config = run.config(data={"growing": True})
    loader, stages = staged_loader(config, data, earlier=[stage(0, "another store")], next_slot=20)
    assert [each["from_slot"] for each in stages] == [0, 20]
    own = make_loader(config, data).rows(range(4))
    assert [row.hash() for row in loader.rows(range(20, 24))] == [row.hash() for row in own]
    with pytest.raises(DataError, match="slot 19: belongs to an earlier store"):
        loader.rows(range(19, 21))


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_ranks_the_first_builds_the_new_text_and_the_others_wait(begun, rank):
    """Regression: on resume all of them built it at once, in the same folder."""
    config, saved = begun.config(**LONGER), SavedRun.open(begun.checkpoints / "checkpoint_step_3")
    before = json.loads((begun.folder / "store" / "manifest.json").read_text())
    at_barrier = []

    def barrier():
        at_barrier.append(json.loads((begun.folder / "store" / "manifest.json").read_text()) != before)

    data = build._prepare(config, saved, SimpleNamespace(rank=rank, barrier=barrier))
    assert at_barrier == [rank == 0]
    assert data.store.manifest != before


def test_a_checkpoint_from_before_there_were_stages_has_had_one_store():
    """Regression: resuming one ended in a KeyError."""
    old = {"identity": {"store_id": "a", "plan_id": "b", "seed": 1}, "resolved": {"rows_per_step": 4}}
    assert list(saved_stages(old)) == [{"from_slot": 0, "store_id": "a", "plan_id": "b"}]
    new = {**old, "resolved": {"data_stages": [{"from_slot": 8, "store_id": "c", "plan_id": "b"}]}}
    assert saved_stages(new)[0]["from_slot"] == 8
