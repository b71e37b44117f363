"""The preset, the micro-batch and the recompute that are chosen, and what is said when nothing fits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from havoc_core.config import TrainingConfig
from havoc_core.errors import ConfigError, PlanError
from havoc_training.memory.presets import plan_memory
from havoc_training.planner.choice import MARGIN, choose
from havoc_training.planner.ledger import memory_ledger
from havoc_training.planner.machine import Machine, machine_of_card

GIB = 2**30
HERE = Machine("CPU", "cpu", 16 * GIB, 16 * GIB, swap_bytes=0)


def gpu(gib: float, host_gib: float | None = None) -> Machine:
    return Machine("card", "cuda", int(gib * GIB), None if host_gib is None else int(host_gib * GIB), swap_bytes=0)


def chosen(machine: Machine, working="bfloat16", world_size=1, **values):
    return choose(TrainingConfig.model_validate(values), machine, working=working, world_size=world_size)


def refused(machine: Machine, **values) -> PlanError:
    with pytest.raises(PlanError) as caught:
        chosen(machine, **values)
    assert caught.value.exit_code == 3
    return caught.value


@pytest.mark.parametrize(
    ("card", "preset", "gradients"),
    [
        ("RTX 4090", "stream", "bfloat16"),
        ("A100-40", "offload", "bfloat16"),
        ("A100-80", "offload", "float32"),
        ("H200", "fp32_master", "float32"),
    ],
)
def test_the_7b_runs_with_textbook_adamw_on_every_card_of_the_table(card, preset, gradients):
    choice = chosen(machine_of_card(card))
    assert (choice.memory.preset, choice.memory.gradients) == (preset, gradients)
    assert choice.memory.exact
    assert choice.micro_batch_size * choice.micro_batches == 32
    assert any(
        f"`memory: {preset}`" in reason and "is the first that fits: textbook AdamW" in reason
        for reason in choice.reasons
    )


def test_a_card_under_16_gb_keeps_its_gradients_on_the_host():
    memory = chosen(machine_of_card("5060 ti")).memory
    assert (memory.preset, memory.gradients, memory.gradients_on) == ("stream", "float32", "host")


def test_without_host_memory_for_the_states_they_are_rounded_on_the_device():
    choice = chosen(machine_of_card("A100-80", 32 * GIB))
    assert choice.memory.preset == "fp32_master_bf16m"
    assert any("needs" in reason and "GiB of host memory; 32.0 are free." in reason for reason in choice.reasons)


def test_what_is_chosen_fits_with_the_margin_and_the_next_larger_micro_batch_does_not():
    machine = machine_of_card("RTX 4090")
    choice = chosen(machine)
    assert choice.ledger.peak_bytes <= machine.device_bytes * (1 - MARGIN)
    more = memory_ledger(TrainingConfig().model, choice.memory, rows=choice.micro_batch_size * 2, length=2048)
    assert more.peak_bytes > machine.device_bytes * (1 - MARGIN)
    assert any("rows are the most that fit" in reason for reason in choice.reasons)


@pytest.mark.parametrize("gib", [20, 24, 30, 40, 50, 64, 80, 100, 120, 140, 180])
def test_a_larger_card_never_needs_a_later_preset(gib):
    order = ["fp32_master", "offload", "stream"]
    smaller, larger = chosen(gpu(gib)), chosen(gpu(gib * 1.1))
    assert order.index(larger.memory.preset) <= order.index(smaller.memory.preset)


def test_a_micro_batch_of_4096_tokens_without_recompute_is_preferred_to_a_larger_one_with():
    """Recompute costs a third; beyond 4,096 tokens a larger micro-batch gains next to nothing."""
    values = {"model": "1b", "memory_options": {"gradients": "float32"}}
    config = TrainingConfig.model_validate(values)
    none = plan_memory(config, preset="fp32_master", working="bfloat16")
    two = memory_ledger(config.model, none, rows=2, length=2048).peak_bytes
    machine = gpu(two / (1 - MARGIN) / GIB + 0.01)
    choice = chosen(machine, **values)
    assert (choice.micro_batch_size, choice.memory.recompute) == (2, "none")
    assert any("4,096 tokens keep the device busy" in reason for reason in choice.reasons)
    with_less = chosen(gpu(two / (1 - MARGIN) / GIB - 0.01), **values)
    assert with_less.memory.recompute != "none", "one row of 2,048 tokens would leave the device idle"


def test_recompute_that_is_set_is_kept():
    assert chosen(machine_of_card("H200"), recompute="full", model="1b").memory.recompute == "full"
    assert chosen(machine_of_card("H200"), recompute="none", model="1b").memory.recompute == "none"


def test_streamed_weights_are_always_computed_with_again():
    assert chosen(machine_of_card("H200"), memory="stream").memory.recompute == "full"


def test_moved_activations_bring_full_recompute_with_them():
    memory = chosen(machine_of_card("H200"), memory="offload", memory_options={"offload_activations": True}).memory
    assert (memory.recompute, memory.offload_activations) == ("full", True)


def test_a_named_preset_keeps_the_micro_batch_as_set():
    choice = chosen(machine_of_card("H200"), memory="fp32_master", batch_size=4, gradient_accumulation_steps=8)
    assert (choice.micro_batch_size, choice.micro_batches) == (4, 8)


def test_auto_leaves_formats_that_are_set_alone():
    assert chosen(machine_of_card("H200"), memory_options={"gradients": "bfloat16"}).memory.gradients == "bfloat16"
    host = chosen(machine_of_card("H200"), memory_options={"gradients_on": "host"})
    assert host.memory.preset == "stream", "the only one that can"


def test_rows_of_a_step_are_shared_by_the_devices():
    choice = chosen(
        machine_of_card("H200"), world_size=4, rows_per_step=32, model="1b", data={"max_sequence_length": 512}
    )
    assert choice.micro_batch_size * choice.micro_batches == 8
    alone = chosen(machine_of_card("H200"), world_size=4, batch_size=1, gradient_accumulation_steps=2, model="1b")
    assert alone.micro_batch_size * alone.micro_batches == 2


def test_on_a_cpu_it_is_fp32_master_with_the_micro_batch_as_set():
    choice = chosen(HERE, working="float32", model="nano", batch_size=2)
    assert (choice.memory.preset, choice.memory.master, choice.micro_batch_size) == ("fp32_master", "own", 2)


def test_on_a_cpu_a_micro_batch_that_is_too_large_is_cut():
    config = {"model": "nano", "batch_size": 64, "gradient_accumulation_steps": 1, "recompute": "none"}
    whole = chosen(HERE, working="float32", **config).ledger
    small = replace(HERE, device_bytes=whole.peak_bytes // 2, host_bytes=whole.peak_bytes // 2)
    cut = chosen(small, working="float32", **config)
    assert cut.micro_batch_size < 64
    assert cut.micro_batch_size * cut.micro_batches == 64


def test_on_a_cpu_device_and_host_are_the_same_memory():
    config = TrainingConfig(memory="stream", device="cpu", model="30m")  # type: ignore[arg-type]
    choice = choose(config, HERE, working="bfloat16")
    both = choice.ledger.peak_bytes + choice.ledger.host_bytes
    assert choice.ledger.host_bytes > 0
    short = replace(HERE, device_bytes=both, host_bytes=both)  # the margin is missing
    with pytest.raises(PlanError, match="GiB of memory; the machine has"):
        choose(config, short, working="bfloat16")


def test_too_little_host_memory_is_answered_with_the_nearest_setting_that_fits():
    error = refused(replace(machine_of_card("RTX 4090", 64 * GIB), swap_bytes=0))
    assert error.where == "memory"
    assert error.found.startswith("this run needs 1")
    assert "GiB on the GPU; it has 22.6 GiB (RTX 4090)." in error.found
    assert "With `memory: stream` it needs" in error.remedy
    assert "GiB of RAM (64.0 found); with `memory: stream` and bfloat16 moments it needs" in error.remedy
    assert error.remedy.endswith("--memory stream --memory-options.moments bfloat16.")


def test_the_setting_that_is_proposed_works():
    machine = machine_of_card("RTX 4090", 64 * GIB)
    assert chosen(machine, memory="stream", memory_options={"moments": "bfloat16"}).ledger.host_bytes < 64 * GIB


def test_missing_swap_is_said_where_host_memory_is_short():
    machine = replace(machine_of_card("RTX 4090", 20 * GIB), swap_bytes=0)
    assert "GiB of RAM, and no swap." in refused(machine, memory="stream").found
    assert "swap" not in refused(replace(machine, swap_bytes=GIB), memory="stream").found


def test_a_named_preset_that_is_too_large_is_answered_with_a_smaller_micro_batch():
    values = {"memory": "fp32_master", "recompute": "none", "gradient_accumulation_steps": 1, "model": "1b"}
    error = refused(gpu(24), batch_size=64, **values)
    words = error.remedy.split()
    assert error.remedy.startswith("Set batch_size to ")
    assert "a step stays the same 64 rows." in error.remedy
    rows, steps = int(words[3]), int(words[7].rstrip(":"))
    assert rows * steps == 64
    chosen(gpu(24), **{**values, "batch_size": rows, "gradient_accumulation_steps": steps})  # the remedy works


def test_a_row_that_is_too_long_is_said_to_be_one_that_cannot_be_halved():
    values = {"model": {"size": "1b", "max_seq_len": 4_194_304}, "data": {"max_sequence_length": 4_194_304}}
    error = refused(gpu(24, 64), **values)
    assert "One row of 4,194,304 tokens is too much, and a micro-batch of 1 row cannot be halved." in error.found
    assert error.remedy.startswith("Rows of ")
    assert "tokens fit: --data.max-sequence-length" in error.remedy
    length = int(error.remedy.split()[-1].rstrip("."))
    chosen(gpu(24, 64), model=values["model"], data={"max_sequence_length": length})  # the remedy works


def test_where_no_setting_fits_the_largest_named_model_that_does_is_named():
    error = refused(gpu(3, 4))
    name = error.remedy.split()[-1].rstrip(".")
    assert error.remedy == f"The largest named model that fits is '{name}': --model.size {name}."
    chosen(gpu(3, 4), model=name)  # the remedy works


def test_where_nothing_fits_there_is_only_a_larger_device():
    assert refused(gpu(0.01, 0.01)).remedy == "Use a device with more memory."


def test_memory_held_by_others_is_said():
    machine = replace(machine_of_card("H200"), held_bytes=5 * GIB)
    assert "Other processes hold 5.0 GiB of the GPU; the plan leaves them alone." in chosen(machine, model="1b").reasons
    busy = replace(gpu(3, 4), held_bytes=20 * GIB)
    assert "20.0 GiB of it held by other processes" in refused(busy).found


@pytest.mark.parametrize("preset", ["stream", "offload"])
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_streaming_without_a_gpu_is_refused_unless_the_cpu_is_asked_for(preset, device):
    with pytest.raises(ConfigError) as caught:
        chosen(HERE, memory=preset, device=device, model="nano")
    assert caught.value.where == "memory"
    assert caught.value.found == f"'{preset}' moves states between a GPU and the host, and there is no GPU here."
    assert caught.value.remedy == "Use `memory: auto`, or try it out without one: `--device cpu`."
    assert chosen(HERE, memory=preset, device="cpu", model="nano").memory.preset == preset


def test_8_bit_products_are_refused_where_the_hardware_has_none():
    for machine, has in ((machine_of_card("RTX 3090"), "compute capability 8.6"), (HERE, "no such instructions")):
        with pytest.raises(ConfigError) as caught:
            chosen(machine, fp8=True, model="nano")
        assert caught.value.where == "fp8"
        assert caught.value.found == f"true, but the {machine.name} ({has}) does not multiply 8-bit floats."
        assert "it takes a GPU of compute capability 8.9 or newer" in caught.value.remedy
    assert chosen(machine_of_card("RTX 4090"), fp8=True, model="nano").memory.preset == "fp32_master"


def test_a_card_without_bfloat16_units_is_said_to_be_one():
    assert any(
        "The T4 has no bfloat16 units" in reason for reason in chosen(machine_of_card("T4"), model="100m").reasons
    )


def test_an_optimizer_that_needs_whole_tensors_has_fp32_master_alone():
    memory = chosen(machine_of_card("H200"), optimizer="muon", model="1b").memory
    assert (memory.preset, memory.master) == ("fp32_master", "separate")


def test_settings_that_no_preset_understands_are_refused_in_the_words_of_the_first():
    with pytest.raises(ConfigError, match="needs whole float32 masters"):
        chosen(machine_of_card("H200"), optimizer="muon", memory_options={"moments": "bfloat16"})
