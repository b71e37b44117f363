"""The whole way from text to a store, and what a run that continues may find."""

from __future__ import annotations

import pytest

from havoc_core.errors import CheckpointError, DataError
from havoc_core.run_files import RunFiles
from havoc_data.prepare.build import open_prepared, prepare, prepare_to_continue


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
