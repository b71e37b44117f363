"""The whole way from text to a store, and what a run that continues may find."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from havoc_core.errors import CheckpointError, DataError
from havoc_core.run_files import RunFiles
from havoc_data.prepare.build import open_prepared, prepare, prepare_to_continue
from havoc_data.prepare.seal import is_sealed


def never(config):
    return config.model_copy(update={"data": config.data.model_copy(update={"rebuild": "never"})})


def test_never_rebuilding_takes_the_store_as_it_stands(config, data):
    store = prepare(config).store
    (data / "math" / "00.txt").write_text("something else " * 200)
    assert prepare(never(config)).store.id == store.id
    assert open_prepared(config).store.id == store.id


def test_never_rebuilding_needs_something_that_stands(config):
    with pytest.raises(DataError, match="Train one: havoc tokenizer train"):
        prepare(never(config))


def test_a_store_is_not_read_with_another_tokenizer(config, data, tmp_path):
    """Regression: ids of another tokenizer were taken for its own, and trained on."""
    prepare(config)
    smaller = config.tokenizer.model_copy(update={"vocab_size": 590})
    other = config.model_copy(update={"run_dir": str(tmp_path / "other"), "tokenizer": smaller})
    prepare(other)
    shutil.rmtree(Path(config.run_dir) / "tokenizer")
    (tmp_path / "other" / "tokenizer").rename(Path(config.run_dir) / "tokenizer")
    with pytest.raises(
        DataError, match="was made with another tokenizer than the one in .*: its ids would mean"
    ) as caught:
        open_prepared(config)
    assert "Put the tokenizer of the store there, or build the store again: havoc data build." in caught.value.remedy


def test_a_store_elsewhere_needs_the_tokenizer_it_was_made_with(config, tmp_path):
    config = config.model_copy(update={"data": config.data.model_copy(update={"store": str(tmp_path / "far")})})
    with pytest.raises(DataError, match="there is no tokenizer, and .*far is of use only with the one") as caught:
        open_prepared(config)
    assert caught.value.remedy == "Copy the tokenizer/ folder of the run that built the store."


def test_to_continue_the_store_must_be_the_one_of_the_checkpoint(config, data):
    store = prepare(config).store
    assert prepare_to_continue(config, store_id=store.id).store.id == store.id
    with pytest.raises(
        CheckpointError, match="data: the token store is .* the checkpoint was trained on 000000000000…"
    ) as caught:
        prepare_to_continue(config, store_id="0" * 64)
    assert "--fine-tune" in caught.value.remedy


def test_to_continue_the_text_must_not_have_changed(config, data):
    store = prepare(config).store
    (data / "math" / "00.txt").write_text("something else " * 200)
    with pytest.raises(
        CheckpointError, match="data: the text or its settings have changed since the checkpoint."
    ) as caught:
        prepare_to_continue(config, store_id=store.id)
    assert "Put the text back as it was" in caught.value.remedy
    assert (RunFiles.of(config).store / "manifest.json").is_file()  # and nothing of the run was lost
    assert prepare_to_continue(never(config), store_id=store.id).store.id == store.id


@pytest.fixture
def folders_of(contents):
    """Every byte of corpus, tokenizer and store of a run."""

    def read(run_dir):
        return {name: contents(Path(run_dir) / name) for name in ("corpus", "tokenizer", "store")}

    return read


@pytest.mark.parametrize(
    "settings",
    [
        {"runner": "processes", "num_workers": 2},
        pytest.param({"runner": "processes", "num_workers": 1}, marks=pytest.mark.slow),
        pytest.param({"runner": "processes", "num_workers": 8}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_any_number_of_processes_gives_the_same_bytes(lab, lab_config, folders_of, undisturbed, settings):
    config = lab_config(data=settings)
    prepare(config)
    assert folders_of(config.run_dir) == folders_of(undisturbed)


@pytest.mark.slow
def test_ray_gives_the_same_bytes(lab_config, folders_of, undisturbed):
    pytest.importorskip("ray", reason="the package ray is not installed")
    config = lab_config(data={"runner": "ray", "num_workers": 2})
    prepare(config)
    assert folders_of(config.run_dir) == folders_of(undisturbed)


def test_another_hash_seed_gives_the_same_bytes(lab_config, folders_of, attempt, undisturbed):
    config = lab_config()
    assert attempt(config, seed="12345").code == 0
    assert folders_of(config.run_dir) == folders_of(undisturbed)


@pytest.mark.parametrize("runner", ["inline", pytest.param("processes", marks=pytest.mark.slow)])
def test_files_that_were_made_in_another_order_give_the_same_bytes(data, config, changed, tmp_path, folders_of, runner):
    prepare(config)
    shuffled = sorted(data.rglob("*"), key=lambda path: hashlib.sha256(path.name.encode()).digest())
    for path in shuffled:
        if path.is_file():
            copy = tmp_path / "shuffled" / path.relative_to(data)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    settings = {"data_dir": str(tmp_path / "shuffled"), "runner": runner, "num_workers": 2}
    other = changed(config, settings, run_dir=str(tmp_path / "other"))
    prepare(other)
    assert folders_of(other.run_dir) == folders_of(config.run_dir)


HEX = "[0-9a-f]{32}"
MOMENTS = {
    "a part begins to be examined": (rf"os.mkdir .*/parts/\.{HEX}\.writing$", 3, (1, 0, 0)),
    "a part is being examined": (rf"open .*/parts/\.{HEX}\.writing/facts\.json$", 4, (3, 0, 0)),
    "a part is about to get its name": (rf"os.rename .*/parts/\.{HEX}\.writing$", 2, (1, 0, 0)),
    "all is compared": (r"open .*/\.signatures\.[^/]*/all\.npy$", 1, (5, 0, 0)),
    "a part is being settled": (rf"open .*/settled/\.{HEX}\.writing/ledger.jsonl.zst$", 3, (5, 2, 0)),
    "the manifest is about to be written": (r"os.rename .*/\.manifest\.writing$", 1, (5, 5, 0)),
    "a part is being tokenized": (rf"open .*/\.{HEX}\.writing/validation/00000\.tok$", 2, (5, 5, 1)),
    "a tokenized part is about to get its name": (rf"os.rename .*/\.store\.parts/\.{HEX}\.writing$", 4, (5, 5, 3)),
    "the store is being put together": (r"open .*/\.store\.writing/lab/00000\.prov\.zst$", 1, (5, 5, 5)),
    "the store is about to get its name": (r"os.rename .*/\.store\.writing$", 1, (5, 5, 5)),
}
"""What is about to happen, for the how-manieth time, and how many parts are finished by then, of each stage."""


OFTEN = ("a part is being examined", "a part is being settled", "a part is being tokenized")
"""Moments that are tried each time; the others in the slow tier."""


@pytest.mark.parametrize(
    "moment", [pytest.param(each, marks=() if each in OFTEN else pytest.mark.slow) for each in MOMENTS]
)
def test_a_run_that_was_killed_goes_on_where_it_was(moment, lab, lab_config, attempt, folders_of, undisturbed):
    pattern, number, finished = MOMENTS[moment]
    config = lab_config(data={"runner": "inline"})
    killed = attempt(config, pattern, number)
    assert killed.code == -9, killed.error
    run_dir = RunFiles.of(config).run_dir
    stages = ("corpus/parts", "corpus/settled", ".store.parts")
    whole = [[each for each in below(run_dir / stage) if is_sealed(each)] for stage in stages]
    assert tuple(map(len, whole)) == finished
    for stage, found in zip(stages, whole, strict=True):
        assert found == below(run_dir / stage), "nothing half-written has a final name"
    assert not (run_dir / "store" / "manifest.json").exists()
    lab.read()
    again = attempt(config)
    assert again.code == 0, again.error
    examined, settled, tokenized = finished
    assert len(lab.read()) == again.worked_on("parts") == 5 - examined
    assert again.worked_on("settled") == 5 - settled
    assert again.worked_on(".store.parts") == 5 - tokenized
    assert folders_of(config.run_dir) == folders_of(undisturbed)


def below(folder):
    """Folders with a final name."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(each for each in found if not each.name.startswith(".") and not each.name.endswith(".old"))


@pytest.mark.slow
def test_killed_at_any_moment_the_same_comes_out(lab_config, attempt, folders_of, undisturbed):
    """The process is killed at every seventh file that it writes, makes, moves or removes below its folder."""
    number, died = 1, 0
    while True:
        config = lab_config(f"killed{number}", data={"runner": "inline"})
        run_dir = RunFiles.of(config).run_dir
        done = attempt(config, rf" {run_dir}/", number)
        if done.code == 0:
            break
        assert done.code == -9, done.error
        died += 1
        for stage in ("corpus/parts", "corpus/settled", ".store.parts"):
            assert all(map(is_sealed, below(run_dir / stage)))
        prepare(config)
        assert folders_of(config.run_dir) == folders_of(undisturbed), number
        number += 7
    assert died > 20


def test_a_run_that_is_finished_does_nothing(lab, lab_config, attempt):
    config = lab_config(data={"runner": "inline"})
    prepare(config)
    lab.read()
    again = attempt(config)
    assert (again.code, lab.read()) == (0, [])
    assert [folder for folder in again.folders if ".writing" in folder] == []
