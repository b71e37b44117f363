"""How memory is used: chosen at the first start, kept when a run is resumed, chosen anew when asked."""

from __future__ import annotations

import json

import pytest

from havoc_core.config import TrainingConfig
from havoc_core.errors import ConfigError, PlanError
from havoc_training.memory.presets import MemoryPlan, plan_memory
from havoc_training.memory_choice import choose_memory
from havoc_training.planner.machine import Machine

GIB = 2**30
HERE = Machine("CPU", "cpu", 16 * GIB, 16 * GIB, swap_bytes=0)
LARGE = Machine("card", "cuda", 140 * GIB, 500 * GIB)
SMALL = Machine("card", "cuda", 4 * GIB, 500 * GIB)


def config_of(**values):
    return TrainingConfig.model_validate(
        {"model": {"size": "nano"}, "batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 9, **values}
    )


def resolved(preset="stream", *, micro_batch_size=1, rows=8, working="bfloat16", config=None):
    """As a checkpoint has it."""
    plan = plan_memory(config or config_of(), preset=preset, working=working)
    values = {"memory": vars(plan), "micro_batch_size": micro_batch_size, "rows_per_step": rows}
    return json.loads(json.dumps(values))


def test_a_fresh_run_has_what_the_planner_chooses_and_its_reasons():
    made = choose_memory(config_of(), HERE, working="float32")
    assert (made.memory.preset, made.memory.working, made.micro_batch_size) == ("fp32_master", "float32", 4)
    assert made.choice is not None
    assert (made.choice.memory, made.choice.micro_batch_size) == (made.memory, 4)
    assert made.choice.reasons
    assert made.machine is HERE


def test_what_is_written_into_a_checkpoint_can_be_read_from_it():
    made = choose_memory(config_of(), LARGE, working="bfloat16")
    values = json.loads(json.dumps(made.to_json()))
    assert MemoryPlan(**values["memory"]) == made.memory
    assert values["micro_batch_size"] == made.micro_batch_size
    again = choose_memory(
        config_of(), SMALL, working="bfloat16", kept={**values, "rows_per_step": 8}, kept_config=config_of()
    )
    assert (again.memory, again.micro_batch_size) == (made.memory, made.micro_batch_size)


def test_a_resumed_run_keeps_what_it_was_started_with_though_another_would_fit(said):
    """And the micro-batch that it was cut to when memory ran out, rather than the one of its settings."""
    made = choose_memory(config_of(), LARGE, working="bfloat16", kept=resolved(), kept_config=config_of())
    assert (made.memory.preset, made.micro_batch_size, made.choice) == ("stream", 1, None)
    assert made.machine is LARGE
    assert said == []


def test_other_settings_that_have_nothing_to_do_with_memory_are_no_reason_to_choose_anew():
    made = choose_memory(
        config_of(learning_rate=1e-3, max_steps=99), LARGE, working="bfloat16", kept=resolved(), kept_config=config_of()
    )
    assert (made.memory.preset, made.micro_batch_size) == ("stream", 1)


@pytest.mark.parametrize(
    "change",
    [
        {"memory": "fp32_master"},
        {"memory_options": {"moments": "bfloat16"}},
        {"recompute": "selective"},
        {"batch_size": 2, "gradient_accumulation_steps": 4},
        {"gradient_accumulation_steps": 4},
        {"rows_per_step": 16},
    ],
    ids=str,
)
def test_settings_that_ask_for_another_are_followed_and_that_is_said(change, said):
    made = choose_memory(config_of(**change), LARGE, working="bfloat16", kept=resolved(), kept_config=config_of())
    assert made.choice is not None
    assert made.memory.preset == "fp32_master"
    assert said == ["memory is fp32_master from here on; it was stream."]


def test_the_same_preset_chosen_again_is_not_worth_saying(said):
    kept = resolved("fp32_master")
    made = choose_memory(config_of(recompute="full"), LARGE, working="bfloat16", kept=kept, kept_config=config_of())
    assert (made.memory.preset, made.memory.recompute) == ("fp32_master", "full")
    assert said == []


def test_another_format_of_the_weights_is_another_choice():
    kept = resolved("fp32_master")
    made = choose_memory(config_of(), HERE, working="float32", kept=kept, kept_config=config_of())
    assert made.choice is not None
    assert (made.memory.working, made.memory.master) == ("float32", "own")


def test_a_checkpoint_of_before_there_was_a_choice_is_gone_on_with():
    """It says how many rows a step has; a step keeps them."""
    made = choose_memory(
        config_of(batch_size=3), HERE, working="float32", kept={"rows_per_step": 6}, kept_config=config_of()
    )
    assert made.choice is not None
    assert (made.micro_batch_size, made.choice.micro_batches) == (3, 2)


def test_a_step_keeps_its_rows_when_memory_is_chosen_anew():
    kept = resolved(rows=24)
    made = choose_memory(config_of(recompute="none"), LARGE, working="bfloat16", kept=kept, kept_config=config_of())
    assert made.choice is not None
    assert made.micro_batch_size * made.choice.micro_batches == 24


def test_what_cannot_be_is_refused_in_the_planners_words():
    with pytest.raises(PlanError, match="memory: this run needs .* of memory; the machine has .* GiB available"):
        choose_memory(config_of(model={"size": "havoc_7b"}), HERE, working="bfloat16")
    with pytest.raises(ConfigError, match="memory: 'offload' moves states between a GPU and the host, and there is no"):
        choose_memory(config_of(memory="offload"), HERE, working="bfloat16")
