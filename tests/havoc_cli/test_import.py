"""`havoc import`: a Hugging Face folder comes in, and a run goes on from it."""

from __future__ import annotations

import json

import pytest
import torch

from havoc_inference.export import proof_transformers


@pytest.fixture
def out(havoc, run_copy, monkeypatch):
    """The finished run as a Hugging Face folder."""
    monkeypatch.setattr(proof_transformers, "is_installed", lambda _: False)
    assert havoc("export", run_copy, "--to", "hf", "--out", "out").code == 0
    return "out"


def test_it_comes_in_as_the_first_checkpoint_of_a_run(havoc, here, run_copy, out):
    said = havoc("import", out, "--out", "new")
    assert said.code == 0, said.err
    assert "havoc train --resume new/checkpoints/checkpoint_step_0 --fine-tune" in said.out
    before, after = (
        torch.load(here / run / "checkpoints" / name / "model.pt", weights_only=True)
        for run, name in (("run", "checkpoint_step_6"), ("new", "checkpoint_step_0"))
    )
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    texts = [havoc("generate", run, "--prompt", "abc", "--max-new-tokens", "4").out for run in (run_copy, "new", out)]
    assert texts[0] == texts[1] == texts[2]
    assert "damaged" not in havoc("checkpoint", "list", "new").out


@pytest.mark.slow
def test_training_goes_on_from_its_weights_with_its_tokenizer(havoc, here, out):
    havoc("import", out, "--out", "new")
    texts = here / "texts" / "stats"
    texts.mkdir(parents=True)
    for number in range(20):
        texts.joinpath(f"{number}.txt").write_text(
            "\n".join(f"mean {number} of {n} is {n * number}." for n in range(300))
        )
    source = "new/checkpoints/checkpoint_step_0"
    said = havoc(
        "train", "--resume", source, "--fine-tune", "--run-dir", "tuned", "--data.data-dir", "texts", "--max-steps", "1",
        "--batch-size", "1", "--gradient-accumulation-steps", "1", "--compile", "off", "--device", "cpu", "--threads", "1",
        "--eval-samples", "1", "--use-amp", "false",
    )  # fmt: skip
    assert said.code == 0, said.err
    tuned = here / "tuned" / "checkpoints" / "checkpoint_step_1"
    assert (tuned / "tokenizer" / "tokenizer.json").read_bytes() == (
        here / source / "tokenizer" / "tokenizer.json"
    ).read_bytes()
    before, after = (torch.load(path / "model.pt", weights_only=True) for path in (here / source, tuned))
    assert 0 < max(float((after[name].float() - before[name].float()).abs().max()) for name in before) < 0.02


def test_an_imported_checkpoint_has_no_course_to_go_on_with(havoc, out):
    havoc("import", out, "--out", "new")
    said = havoc("train", "--resume", "new/checkpoints/checkpoint_step_0")
    assert (said.code, "was imported, and has no course of its own" in said.message) == (1, True)
    assert "--fine-tune --run-dir NEW" in said.message


def test_what_it_cannot_represent_is_one_message(havoc, here, out):
    config = json.loads((here / out / "config.json").read_text())
    config["rope_scaling"] = {"rope_type": "yarn", "factor": 4.0}
    (here / out / "config.json").write_text(json.dumps(config))
    said = havoc("import", out, "--out", "new")
    assert (said.code, "rope_scaling is" in said.message) == (2, True)
    assert not (here / "new").exists()
