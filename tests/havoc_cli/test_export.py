"""`havoc export` as a user calls it; the runtimes are not asked here (see tests/end_to_end/test_export_elsewhere.py)."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest

from havoc_inference.export import hugging_face, proof_llama_cpp, proof_transformers


@pytest.fixture
def alone(monkeypatch):
    """Neither runtime is installed."""
    for proof in (proof_transformers, proof_llama_cpp):
        monkeypatch.setattr(proof, "is_installed", lambda _: False)


def test_a_run_is_exported_into_its_folder_and_the_missing_comparison_is_said(havoc, run_copy, alone):
    said = havoc("export", run_copy, "--to", "hf")
    assert said.code == 0, said.err
    out = run_copy / "export" / "hf"
    assert (out / "model.safetensors").is_file()
    assert "NOT compared with transformers: it is not installed." in said.out
    assert said.out.startswith("DUMMY DATA: this model learnt from random words.")
    assert said.out.rstrip().endswith(str(out.resolve()))
    card = (out / "README.md").read_text()
    assert "**Not compared with transformers**" in card
    for source in ("domain", "general", "dialog"):
        assert f"| {source} | {source} |" in card
    assert "| licence | documents |" in card and "| held_out |" in card and " tokens |" in card


def test_a_checkpoint_that_was_taken_elsewhere_is_exported_beside_nobody_elses_files(havoc, run_copy, here, alone):
    """Regression: it was taken for one of a run, and the export went two folders above it."""
    (checkpoint, *_) = (run_copy / "checkpoints").glob("checkpoint_step_*")
    mine = here / "deep" / "er" / "mine"
    shutil.copytree(checkpoint, mine)
    assert havoc("export", mine, "--to", "hf").code == 0
    assert (mine / "export" / "hf" / "config.json").is_file()
    assert not (here / "deep" / "export").exists()


def test_an_imported_model_is_not_said_to_be_trained_here(havoc, run_copy, here, alone):
    """Regression: the card of any model said that it was made from scratch."""
    havoc("export", run_copy, "--to", "hf", "--out", "first")
    assert havoc("import", "first", "--out", "imported").code == 0
    assert havoc("export", "imported", "--to", "hf", "--out", "second").code == 0
    assert "HAVOC; what this run learnt from is listed below" in (here / "first" / "README.md").read_text()
    assert "its training is not recorded here" in (here / "second" / "README.md").read_text()


def test_gguf_takes_its_kind_and_an_earlier_export_is_replaced(havoc, run_copy, alone):
    pytest.importorskip("gguf")
    for kind in ("q8_0", "f32"):
        said = havoc("export", run_copy, "--to", "gguf", "--dtype", kind, "--out", "made")
        assert said.code == 0, said.err
    assert sorted(path.name for path in Path("made").iterdir()) == [
        "Modelfile", "README.md", "havoc_export.json", "model-f32.gguf",
    ]  # fmt: skip
    assert "NOT compared with llama.cpp: xllamacpp is not installed." in said.out


def test_a_folder_with_other_files_is_refused_before_the_checkpoint_is_read(havoc, here):
    (here / "mine").mkdir()
    (here / "mine" / "thesis.tex").write_text("x")
    said = havoc("export", "no such run", "--to", "hf", "--out", "mine")
    assert (said.code, "holds files that no export made" in said.message) == (2, True)


def test_a_damaged_checkpoint_is_one_message(havoc, run_copy):
    newest = run_copy / "checkpoints" / "checkpoint_step_6"
    data = bytearray((newest / "model.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (newest / "model.pt").write_bytes(data)
    said = havoc("export", newest, "--to", "hf")
    assert (said.code, "its checksum is not the manifest's" in said.message) == (1, True)
    assert not (run_copy / "export").exists()


def test_a_full_disk_is_one_message_and_leaves_nothing(havoc, run_copy, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hugging_face, "write_tokenizer", full)
    said = havoc("export", run_copy, "--to", "hf", "--out", "made")
    assert (said.code, "the export cannot be written (No space left on device). Free some disk" in said.message) == (
        1,
        True,
    )
    assert not Path("made").exists() and not list(Path().glob(".made*"))


def test_a_run_without_its_text_and_scores_is_exported_without_them(havoc, run_copy, alone):
    shutil.rmtree(run_copy / "corpus")
    (run_copy / "logs" / "evaluation.json").unlink()
    assert havoc("export", run_copy, "--to", "hf").code == 0
    card = (run_copy / "export" / "hf" / "README.md").read_text()
    assert "is not listed here" in card and "was not evaluated" in card


def test_train_says_at_its_start_what_cannot_be_exported(havoc, prepared, config):
    path = config(model={"mlp": {"activation": "geglu"}, "attention": {"rotary_dim": 8}})
    said = havoc("train", "--config", path, "--max-steps", "1")
    assert said.code == 0, said.err
    assert "Not for export: model.attention.rotary_dim is 8" in said.out
    assert "Not for export: model.mlp.activation is geglu" in said.out
    refused = havoc("export", "run", "--to", "gguf")
    assert (refused.code, "neither a Qwen3 nor a Llama" in refused.message) == (2, True)


def test_the_record_tells_where_it_came_from(havoc, run_copy, alone):
    havoc("export", run_copy, "--to", "hf", "--out", "made")
    record = json.loads(Path("made/havoc_export.json").read_text())
    assert (record["to"], record["step"], record["architecture"], record["dummy_data"]) == ("hf", 6, "qwen3", True)
    assert record["comparisons"] == [{"runtime": "transformers", "made": False, "figures": {}}]
