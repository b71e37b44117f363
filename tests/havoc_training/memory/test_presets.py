"""The presets, their pieces, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from havoc_core.config import TrainingConfig
from havoc_core.errors import ConfigError
from havoc_training.memory.presets import AUTO_ORDER, MemoryPlan, plan_memory

PRESETS = ("fp32_master", "fp32_master_bf16m", "offload", "stream", "8bit", "bf16_sr")


def plan(preset, *, working="bfloat16", config=None, **options):
    whole = TrainingConfig.model_validate({**(config or {}), "memory_options": options})
    return plan_memory(whole, preset=preset, working=working)


def refusal(*args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        plan(*args, **kwargs)
    return caught.value.where, caught.value.found, caught.value.remedy


@pytest.mark.parametrize(
    ("preset", "master", "moments", "gradients", "states_on", "weights_on"),
    [
        ("fp32_master", "split", "float32", "float32", "device", "device"),
        ("fp32_master_bf16m", "split", "bfloat16", "float32", "device", "device"),
        ("offload", "split", "float32", "float32", "host", "device"),
        ("stream", "split", "float32", "bfloat16", "host", "host"),
        ("8bit", "none", "int8", "bfloat16", "device", "device"),
        ("bf16_sr", "none", "bfloat16", "bfloat16", "device", "device"),
    ],
)
def test_a_preset_is_made_of_these_pieces(preset, master, moments, gradients, states_on, weights_on):
    assert plan(preset) == MemoryPlan(
        preset=preset,
        working="bfloat16",
        master=master,
        moments=moments,
        gradients=gradients,
        states_on=states_on,
        weights_on=weights_on,
        gradients_on="device",
        rounding="stochastic",
        recompute="full" if preset == "stream" else "none",
        offload_activations=False,
    )


@pytest.mark.parametrize(
    ("preset", "bytes_per_parameter"),
    [
        ("fp32_master", 16.0),  # 2 weight + 2 remainder + 8 moments + 4 gradient
        ("fp32_master_bf16m", 12.0),  # 2 + 2 + 4 + 4
        ("offload", 6.0),  # 2 + 4
        ("stream", 4.0),  # 2 + 2, outside streamed blocks
        ("8bit", 6.03125),  # 2 + 2 * (1 + 4 / 256) + 2
        ("bf16_sr", 8.0),  # 2 + 4 + 2
    ],
)
def test_a_parameter_costs_this_much_of_the_device(preset, bytes_per_parameter):
    assert plan(preset).device_state_bytes == bytes_per_parameter


@pytest.mark.parametrize(
    ("master", "moments", "gradients", "expected"),
    [("own", "float32", "float32", (0, 8, 4)), ("separate", "bfloat16", "bfloat16", (4, 4, 2)),
     ("split", "int8", "float32", (2, 2.03125, 4)), ("none", "float32", "bfloat16", (0, 8, 2))],
)  # fmt: skip
def test_the_parts_have_their_own_prices(master, moments, gradients, expected):
    it = MemoryPlan("x", "float32", master, moments, gradients, "device", "device", "device")
    assert (it.master_bytes, it.moment_bytes, it.gradient_bytes) == expected
    assert it.device_state_bytes == 4 + sum(expected)


def test_what_lies_on_the_host_costs_the_device_nothing():
    plan_on_host = plan("stream", gradients_on="host")
    assert plan_on_host.device_state_bytes == 2
    assert (plan_on_host.master_bytes, plan_on_host.moment_bytes, plan_on_host.gradient_bytes) == (2, 8, 2)


def test_float32_master_and_moments_are_exact_wherever_they_lie():
    assert {preset: plan(preset).exact for preset in PRESETS} == {
        "fp32_master": True,
        "fp32_master_bf16m": False,
        "offload": True,
        "stream": True,
        "8bit": False,
        "bf16_sr": False,
    }
    assert plan("bf16_sr", master="split", moments="float32").exact
    assert not plan("offload", moments="int8").exact
    assert not plan("fp32_master", master="none").exact


def test_only_streamed_weights_stream():
    assert [preset for preset in PRESETS if plan(preset).streams] == ["stream"]


def test_auto_tries_every_exact_preset_before_a_rounded_one():
    exact = [plan(preset).exact for preset in AUTO_ORDER]
    assert exact == sorted(exact, reverse=True)
    assert {preset for preset in PRESETS if plan(preset).exact} <= set(AUTO_ORDER)


def test_an_option_changes_its_own_piece_alone():
    base = plan("fp32_master")
    changed = plan("fp32_master", moments="int8", gradients="bfloat16")
    assert (changed.moments, changed.gradients) == ("int8", "bfloat16")
    assert (changed.master, changed.states_on, changed.weights_on) == (base.master, base.states_on, base.weights_on)


def test_float32_weights_are_their_own_masters_and_have_float32_gradients():
    for preset in ("fp32_master", "fp32_master_bf16m", "offload", "stream"):
        it = plan(preset, working="float32")
        assert (it.master, it.gradients) == ("own", "float32")


def test_float16_weights_and_other_optimizers_have_separate_masters():
    assert plan("fp32_master", working="float16").master == "separate"
    assert plan("fp32_master", config={"optimizer": "muon"}).master == "separate"
    assert plan("fp32_master", working="float32", config={"optimizer": "muon"}).master == "own"


def test_recompute_is_taken_from_the_config_and_auto_means_none_unless_weights_are_streamed():
    assert [plan("offload", config={"recompute": r}).recompute for r in ("auto", "none", "selective", "full")] == [
        "none", "none", "selective", "full",
    ]  # fmt: skip
    assert [plan("stream", config={"recompute": r}).recompute for r in ("auto", "full")] == ["full", "full"]


def test_offloaded_activations_go_with_full_recompute_also_the_one_that_streaming_brings():
    assert plan("offload", config={"recompute": "full"}, offload_activations=True).offload_activations
    assert plan("stream", offload_activations=True).offload_activations


def test_nearest_rounding_is_granted_where_nothing_is_lost():
    assert plan("fp32_master", rounding="nearest").rounding == "nearest"
    it = plan("fp32_master_bf16m", config={"adam_beta2": 0.95}, rounding="nearest")
    assert (it.moments, it.rounding) == ("bfloat16", "nearest")


# Every refusal, in its words.


@pytest.mark.parametrize("preset", ["fp32_master_bf16m", "offload", "stream", "8bit", "bf16_sr"])
def test_another_optimizer_than_adamw_is_refused_beside_fp32_master(preset):
    assert refusal(preset, config={"optimizer": "muon"}) == (
        "memory",
        f"'{preset}' and its options are made for AdamW on bfloat16 or float32 weights; the optimizer 'muon' needs whole "
        "float32 masters.",
        "Use `memory: fp32_master` without memory_options.",
    )


def test_options_of_fp32_master_are_refused_with_another_optimizer():
    assert refusal("fp32_master", config={"optimizer": "muon"}, moments="bfloat16")[2] == (
        "Use `memory: fp32_master` without memory_options."
    )


def test_float16_weights_are_refused_beside_fp32_master():
    assert refusal("offload", working="float16") == (
        "memory",
        "'offload' and its options are made for AdamW on bfloat16 or float32 weights; float16 weights need whole float32 "
        "masters.",
        "Use `memory: fp32_master` without memory_options.",
    )


@pytest.mark.parametrize("working", ["float16", "float32"])
@pytest.mark.parametrize(
    ("preset", "options"),
    [("bf16_sr", {}), ("fp32_master", {"master": "none"}), ("offload", {"master": "split"}), ("stream", {"gradients_on": "host"})],
)  # fmt: skip
def test_what_is_made_of_bfloat16_halves_is_refused_for_other_weights(working, preset, options):
    assert refusal(preset, working=working, **options) == (
        "memory",
        f"'{preset}' with these memory_options is made for bfloat16 weights; this run computes in {working}.",
        "Set `use_amp: true` and `amp_dtype: bfloat16`, or use `memory: fp32_master`.",
    )


@pytest.mark.parametrize(("preset", "options"), [("bf16_sr", {}), ("8bit", {}), ("offload", {"master": "none"})])
def test_weights_without_a_master_rounded_to_nearest_are_refused(preset, options):
    assert refusal(preset, rounding="nearest", **options) == (
        "memory_options.rounding",
        "bfloat16 weights without a master, rounded to nearest, stop learning at low rates: an update smaller than half of "
        "the last bit is lost, 83 % of the progress at a rate of 3e-5.",
        "Use `rounding: stochastic`, or `master: split`.",
    )


@pytest.mark.parametrize(
    ("moments", "beta2"), [("bfloat16", 0.96), ("bfloat16", 0.999), ("int8", 0.95), ("int8", 0.999)]
)
def test_rounded_moments_that_would_stand_still_are_refused(moments, beta2):
    assert refusal("fp32_master", config={"adam_beta2": beta2}, moments=moments, rounding="nearest") == (
        "memory_options.rounding",
        f"{moments} moments rounded to nearest stop following the gradients at adam_beta2 {beta2:g}.",
        "Use `rounding: stochastic`, or bfloat16 moments with adam_beta2 up to 0.95.",
    )


def test_gradients_on_the_host_are_refused_where_weights_are_on_the_device():
    assert refusal("offload", gradients_on="host") == (
        "memory_options.gradients_on",
        "'host' goes with streamed weights; `memory: offload` keeps them on the device.",
        "Use `memory: stream`, or leave gradients_on out.",
    )


@pytest.mark.parametrize("recompute", ["none", "selective"])
def test_less_than_full_recompute_is_refused_where_weights_are_streamed(recompute):
    assert refusal("stream", config={"recompute": recompute}) == (
        "recompute",
        f"'{recompute}' would keep the streamed weights of every block for the backward pass.",
        "Use `recompute: full` or auto with `memory: stream`.",
    )


@pytest.mark.parametrize(("asked", "got"), [("auto", "none"), ("none", "none"), ("selective", "selective")])
def test_offloading_inputs_that_are_not_kept_is_refused(asked, got):
    assert refusal("fp32_master", config={"recompute": asked}, offload_activations=True) == (
        "memory_options.offload_activations",
        f"moves the inputs of recomputed blocks, and with `recompute: {got}` there are none.",
        "Add `recompute: full`.",
    )


def test_presets_are_read_without_torch():
    code = "import sys, havoc_training.memory.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
