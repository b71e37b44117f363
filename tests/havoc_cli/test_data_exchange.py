"""`havoc data export | import`."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from havoc_cli.data_exchange import run_export, run_import
from havoc_core.errors import ConfigError, DataError
from havoc_core.tokenizer import Tokenizer
from havoc_data.prepare.train_tokenizer import train_bpe
from havoc_data.store import TokenStore

TEXTS = [f"Document {number}. " + f"The mean of {number} and {number % 7} is no σ. " * 20 for number in range(200)]


@pytest.fixture(scope="session")
def foreign(tmp_path_factory):
    """A folder with a tokenizer and files that datatrove could have written. Not to be changed."""
    folder = tmp_path_factory.mktemp("foreign")
    tokenizer = Tokenizer(train_bpe(iter(TEXTS[:20]), vocab_size=520))
    tokenizer.save(folder / "tokenizer")
    documents = [[*tokenizer.encode(text), tokenizer.eos_id] for text in TEXTS]
    ids = [token for document in documents for token in document]
    (folder / "web.ds").write_bytes(struct.pack(f"<{len(ids)}H", *ids))
    ends = np.cumsum([len(document) for document in documents])
    (folder / "web.ds.index").write_bytes(ends.astype("<u8").tobytes())
    return folder


def import_arguments(foreign, **changes):
    flags = {
        "format": "datatrove", "tokenizer": foreign / "tokenizer", "group": "general", "name": "web", "run-dir": "run",
    }  # fmt: skip
    return [
        str(foreign / "web.ds"),
        *(str(x) for key, value in {**flags, **changes}.items() for x in ("--" + key, value)),
    ]


def test_import_tells_what_came_in_and_how_to_train_on_it(foreign, here, capsys):
    assert run_import(import_arguments(foreign)) == 0
    said = capsys.readouterr().out
    store = TokenStore(here / "run" / "store")
    record = store.training["web"].record
    assert f"web (general): {record.documents:,} documents, {record.tokens:,} tokens\n" in said
    assert f"held out of general: {200 - record.documents} documents" in said
    assert f"store {store.id}\n" in said
    assert "the settings of a model that has\n520 ids:" in said
    assert said.endswith("    havoc train --config CONFIG.yaml --run-dir run --data.rebuild never\n")


def test_what_was_imported_can_be_exported_in_another_format(foreign, here, capsys):
    run_import(import_arguments(foreign))
    capsys.readouterr()
    assert run_export(["out", "--format", "megatron", "--run-dir", "run", "--format-options", "{dtype: int32}"]) == 0
    said = capsys.readouterr().out
    record = TokenStore(here / "run" / "store").training["web"].record
    tokens = record.tokens - record.documents
    assert said.startswith(
        f"out/web.bin: {record.documents:,} documents, {tokens:,} tokens\nout/validation/general.bin: "
    )
    assert said.endswith("Documents end with id 1.\n")
    assert (here / "out" / "web.bin").stat().st_size == 4 * tokens
    assert run_export(["with_bos", "--format", "olmo", "--run-dir", "run", "--bos"]) == 0
    assert capsys.readouterr().out.endswith("Documents end with id 1 and begin with id 0.\n")
    assert (here / "with_bos" / "web.npy").stat().st_size == 2 * record.tokens


def test_an_empty_document_is_left_out_and_counted_if_asked(foreign, here, capsys):
    (here / "in").mkdir()
    for name in ("web.ds", "web.ds.index"):
        (here / "in" / name).write_bytes((foreign / name).read_bytes())
    size = (foreign / "web.ds").stat().st_size // 2
    with (here / "in" / "web.ds").open("ab") as file:
        file.write(struct.pack("<H", 1))
    with (here / "in" / "web.ds.index").open("ab") as file:
        file.write(struct.pack("<Q", size + 1))
    arguments = ["in/web", *import_arguments(foreign)[1:]]
    with pytest.raises(DataError, match="Leave such documents out: --drop-empty"):
        run_import(arguments)
    assert run_import([*arguments, "--drop-empty", "--licence", "CC0-1.0"]) == 0
    assert "tokens; 1 without text left out\n" in capsys.readouterr().out
    record = TokenStore(here / "run" / "store").training["web"].record
    assert record.licences == {"CC0-1.0": record.documents}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "megatrn"}, "format: 'megatrn' is not a token format here. Did you mean 'megatron'?"),
        ({"format-options": "4"}, "--format-options: '4' names no settings. Write \"{name: value}\"."),
        ({"format-options": "{width: 4}"}, "format_options.width: .* Options of 'datatrove': token_size"),
        ({"format-options": "{token_size: 3}"}, "format_options.token_size: "),
        ({"format-options": "{"}, "--format-options:.*: this is no YAML"),
    ],
)
def test_a_wrong_format_or_option_is_one_message(foreign, here, changes, message):
    with pytest.raises(ConfigError, match=message):
        run_import(import_arguments(foreign, **changes))
    assert not (here / "run").exists()


def test_ids_without_their_tokenizer_are_not_imported(foreign, here):
    with pytest.raises(SystemExit, match="2"):
        run_import([str(foreign / "web.ds"), "--format", "datatrove", "--group", "general", "--name", "web"])
    with pytest.raises(DataError, match="there is no such tokenizer"):
        run_import(import_arguments(foreign, tokenizer="gone"))


def test_a_run_without_a_store_cannot_be_exported(here):
    with pytest.raises(DataError, match="holds no token store"):
        run_export(["out", "--format", "olmo"])
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_training_starts_on_a_store_that_was_imported(havoc, config, foreign, here):
    assert run_import(import_arguments(foreign)) == 0
    said = havoc("train", "--config", config(data={"sources": None}), "--data.rebuild", "never")
    assert said.code == 0, said.err
    assert "6 steps" in said.out
    assert (here / "run" / "checkpoints").is_dir()
