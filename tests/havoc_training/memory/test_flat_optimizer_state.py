"""AdamW in arenas: what a checkpoint of it is, where it can be loaded, and what is refused."""

from __future__ import annotations

import pytest
import torch

from havoc_core import checkpoint
from havoc_core.errors import CheckpointError
from havoc_training.memory.stochastic_rounding import round_to_nearest

PRESETS = ("fp32_master", "fp32_master_bf16m", "offload", "stream", "8bit", "bf16_sr", "float32")
"""float32: the first with working weights of that format."""
EXACT = ("fp32_master", "offload", "stream", "float32")


# What a checkpoint of it is.


@pytest.mark.parametrize("preset", EXACT)
def test_a_checkpoint_of_exact_state_is_that_of_an_optimizer_of_torchs(flat, preset):
    """Names, keys, shapes, formats, the count; the values to the rounding of another kernel."""
    model, optimizer = flat.make(preset, memory_options={"gradients": "float32"} if preset != "float32" else {})
    other_model, other = flat.whole()
    flat.learn(model, optimizer, [0, 1, 2])
    flat.learn(other_model, other, [0, 1, 2])
    ours, theirs = flat.state_of(optimizer), flat.state_of(other)
    assert set(ours) == set(theirs)
    for name, kept in ours.items():
        assert set(kept) == set(theirs[name]) == {"master", "exp_avg", "exp_avg_sq", "step"}
        for key, value in kept.items():
            assert (value.shape, value.dtype) == (theirs[name][key].shape, theirs[name][key].dtype), (name, key)
            # The second moment, squared, has twice the relative error; a last bit of bfloat16 would be 4e-3.
            torch.testing.assert_close(value, theirs[name][key], rtol=2e-6, atol=1e-7)


def test_a_checkpoint_of_before_goes_on_as_it_would_have(flat):
    """One that was written by torch's AdamW on whole masters, under every plan that is exact."""
    other_model, other = flat.whole()
    flat.learn(other_model, other, [0, 1, 2])
    saved = {name: {key: value.clone() for key, value in kept.items()} for name, kept in other.state_dict().items()}
    flat.learn(other_model, other, [3])
    for preset in EXACT:
        model, optimizer = flat.make(preset, memory_options={"gradients": "float32"} if preset != "float32" else {})
        optimizer.load_state_dict(saved)
        flat.learn(model, optimizer, [3])
        for name, kept in flat.state_of(optimizer).items():
            torch.testing.assert_close(kept["master"], other.masters[name], rtol=2e-6, atol=1e-7)
            assert float(kept["step"]) == 4.0


def test_its_checkpoint_can_be_loaded_by_an_optimizer_of_torchs(flat):
    for preset in ("fp32_master", "fp32_master_bf16m", "bf16_sr", "8bit"):
        model, optimizer = flat.make(preset)
        saved = flat.state_of(flat.learn(model, optimizer, [0, 1]))
        other_model, other = flat.whole()
        other.load_state_dict(saved)
        for name, kept in other.state_dict().items():
            assert torch.equal(kept["master"], saved[name]["master"].float())
            assert torch.equal(kept["exp_avg"], saved[name]["exp_avg"].float())
        flat.learn(other_model, other, [2])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_state_that_went_over_the_disk_goes_on_as_before(flat, preset, tmp_path):
    model, optimizer = flat.make(preset)
    flat.learn(model, optimizer, range(3))
    checkpoint.save_tensors(tmp_path / "optimizer.pt", optimizer.state_dict())
    other_model, other = flat.make(preset)
    other.load_state_dict(checkpoint.load_tensors(tmp_path, "optimizer.pt"))
    flat.assert_same(flat.state_of(other), flat.state_of(optimizer))
    flat.learn(model, optimizer, range(3, 6))
    flat.learn(other_model, other, range(3, 6))
    flat.assert_same(flat.state_of(other), flat.state_of(optimizer))
    for (name, one), two in zip(model.named_parameters(), other_model.parameters(), strict=True):
        assert torch.equal(one, two), name


def test_a_state_is_what_it_was_when_it_is_written_and_not_a_view_that_moves(flat, tmp_path):
    model, optimizer = flat.make()
    flat.learn(model, optimizer, [0])
    wanted = flat.state_of(optimizer)
    checkpoint.save_tensors(tmp_path / "optimizer.pt", optimizer.state_dict())
    flat.learn(model, optimizer, [1])
    flat.assert_same(checkpoint.load_tensors(tmp_path, "optimizer.pt"), wanted)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_state_before_the_first_step_can_be_loaded_too(flat, preset):
    _, optimizer = flat.make(preset)
    state = flat.state_of(optimizer)
    assert all(set(kept) == {"master"} for kept in state.values())
    other_model, other = flat.make(preset)
    other.load_state_dict(state)
    flat.learn(other_model, other, [0])
    model, fresh = flat.make(preset)
    flat.assert_same(flat.state_of(other), flat.state_of(flat.learn(model, fresh, [0])))


@pytest.mark.parametrize("second", PRESETS)
@pytest.mark.parametrize("first", PRESETS)
def test_every_plan_loads_the_state_of_every_other(flat, first, second):
    """Exactly where the second keeps what the first kept; else the nearest that it can keep."""
    model, optimizer = flat.make(first)
    saved = flat.state_of(flat.learn(model, optimizer, [0, 1]))
    other_model, other = flat.make(second)
    other.load_state_dict(saved)
    for name, kept in flat.state_of(other).items():
        was = saved[name]
        keeps_master = kept["master"].dtype == torch.float32 or was["master"].dtype == torch.bfloat16
        wanted = was["master"].float() if keeps_master else round_to_nearest(was["master"]).float()
        assert torch.equal(kept["master"].float(), wanted), name
        assert float(kept["step"]) == 2.0
        for key in ("exp_avg", "exp_avg_sq"):
            bar = (
                0.0
                if kept["master"].dim() == 1
                else {"float32": 0.0, "bfloat16": 2.0**-8, "int8": 0.067}[other.plan.moments]
            )
            error = (kept[key].float() - was[key].float()).abs()
            smallest = 2.0**-18 if bar > 0.01 else 0.0  # of an 8-bit code, times the largest of its block
            assert bool((error <= bar * was[key].float().abs() + smallest * was[key].abs().max()).all()), (name, key)
    flat.learn(other_model, other, [2])


def test_there_and_back_over_a_wider_format_changes_no_bit(flat):
    for narrow in ("fp32_master_bf16m", "8bit", "bf16_sr"):
        model, optimizer = flat.make(narrow)
        saved = flat.state_of(flat.learn(model, optimizer, [0, 1]))
        _, wide = flat.make("fp32_master")
        wide.load_state_dict(saved)
        _, back = flat.make(narrow)
        back.load_state_dict(flat.state_of(wide))
        flat.assert_same(flat.state_of(back), saved)


# What it refuses.


def test_the_state_of_another_model_is_refused(flat):
    for mine, theirs in ((False, True), (True, False)):
        _, optimizer = flat.make(tied=mine)
        _, other = flat.make(tied=theirs)
        with pytest.raises(CheckpointError) as caught:
            optimizer.load_state_dict(flat.state_of(other))
        error = caught.value
        assert error.where == "optimizer.pt"
        assert error.found == "lm_head.weight is in one of model and file only."
        assert error.remedy == "Resume with --fine-tune."


def test_the_state_of_muon_is_refused(flat):
    """Regression: it has no count of steps, and was taken for one that was saved before the first update."""
    model, muon = flat.whole(optimizer="muon")
    flat.learn(model, muon, [0])
    _, optimizer = flat.make()
    with pytest.raises(CheckpointError) as caught:
        optimizer.load_state_dict(muon.state_dict())
    error = caught.value
    assert error.where == "optimizer.pt"
    assert error.found == "holds no AdamW moments of model.layers.0.self_attn.q_proj.weight."
    assert error.remedy == "Resume with --fine-tune."
