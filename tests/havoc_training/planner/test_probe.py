"""What a few seconds of work say about a run."""

from __future__ import annotations

import math
import time

import pytest
import torch

from havoc_core.config import TrainingConfig
from havoc_core.costs import hardware_flops_per_token
from havoc_core.distributed import World
from havoc_core.layers import attention_kernel
from havoc_core.layers.segments import Segments
from havoc_core.loss import cross_entropy_sum
from havoc_core.model import first_weights
from havoc_core.models import havoc
from havoc_training.memory.flat_optimizer import FlatOptimizer
from havoc_training.memory.presets import plan_memory
from havoc_training.planner.probe import probe_tokens_per_s

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Matrices this small are no faster on more, and a thread that waits makes timing wild."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_of(**changes):
    values = {
        "model": "nano", "batch_size": 2, "gradient_accumulation_steps": 2, "compile": "off",
        "data": {"max_sequence_length": 256},
    }  # fmt: skip
    return TrainingConfig.model_validate({**values, **changes})


def tiny_run(**changes):
    """Of 64 tokens a row and 0.6 M parameters: a probe of it takes a tenth of a second."""
    small = {"size": "nano", "vocab_size": 512, "d_model": 96, "mlp": {"hidden_dim": 256}}
    return run_of(**{"model": small, "data": {"max_sequence_length": 64}, **changes})


def probed(config, *, budget_s=8.0, preset="fp32_master", rows=2):
    plan = plan_memory(config, preset=preset, working="float32" if preset == "fp32_master" else "bfloat16")
    return probe_tokens_per_s(config, plan, micro_batch_size=rows, device=CPU, budget_s=budget_s)


def seconds_of_a_step(config, plan):
    """Of a whole update: two micro-steps, the norm, AdamW. The best of two."""
    model = havoc.build(config.model)
    optimizer = FlatOptimizer(model, first_weights(model, seed=0), config, plan, CPU)
    model.train()
    length, rows = config.data.max_sequence_length, config.batch_size
    tokens = torch.randint(config.model.vocab_size, (rows, length))
    segments = Segments.of_lengths([[length]] * rows, length)

    def step():
        began = time.perf_counter()
        optimizer.begin()
        for _ in range(config.gradient_accumulation_steps):
            cross_entropy_sum(model(tokens, segments=segments), model.head, tokens).backward()
        optimizer.gradients.finish(World.start(CPU))
        optimizer.update(torch.ones(()))
        return time.perf_counter() - began

    step()
    return min(step(), step())


def test_the_probe_of_a_small_model_is_within_a_factor_of_two_of_real_steps():
    """Three tries: another process that begins or ends between probe and steps says nothing about the probe."""
    config = run_of()
    plan = plan_memory(config, preset="fp32_master", working="float32")
    ratios = []
    for _ in range(3):
        probe = probe_tokens_per_s(config, plan, micro_batch_size=2, device=CPU, budget_s=1.5)
        ratios.append(probe.tokens_per_s * seconds_of_a_step(config, plan) / (4 * 256))
        if 0.5 < ratios[-1] < 2.0:
            break
    assert 0.5 < ratios[-1] < 2.0, ratios


@pytest.mark.parametrize(
    ("size", "rows", "length"), [("nano", 2, 256), ("nano", 64, 2048), ("30m", 8, 1024), ("havoc_7b", 4, 2048)]
)
def test_no_probe_takes_more_than_twice_its_budget(size, rows, length):
    """Whatever the model, on one core of a machine that does other things: counted in seconds of this process."""
    config = run_of(model=size, data={"max_sequence_length": length}, batch_size=rows)
    began = time.process_time()
    probe = probed(config, rows=rows, budget_s=1.0)
    assert time.process_time() - began < 2 * 1.0
    assert probe.source == "probe" and 0 < probe.tokens_per_s < math.inf


def test_a_model_too_large_for_the_probe_is_told_from_the_rate_of_products():
    config = run_of(model="havoc_7b", data={"max_sequence_length": 2048})
    probe = probed(config, budget_s=1.0)
    assert "from the rate of matrix products alone" in probe.how and "do not fit the probe" in probe.how
    # 42 billion operations a token: between a thousandth and a thousand tokens a second on any CPU.
    assert hardware_flops_per_token(config.model, 2048, "none") > 4e10
    assert 1e-3 < probe.tokens_per_s < 1e3


def test_what_was_timed_and_what_was_extrapolated_is_said():
    how = probed(run_of(data={"max_sequence_length": 64})).how  # of nano, whose parameters are known
    assert "2 and 3 of 4 blocks" in how
    assert "micro-batches of 2 x 64 tokens" in how
    assert "the update on 2,097,152 of 3,147,712 parameters" in how


def test_a_micro_batch_that_the_budget_does_not_allow_is_scaled_and_said_so():
    how = probed(run_of(batch_size=512, data={"max_sequence_length": 1024}), rows=512, budget_s=1.5).how
    assert "micro-batches of 512 x 1024 tokens, timed with " in how
    assert "scaled by operations" in how


def test_a_step_is_its_micro_steps_and_one_update():
    probe = probed(tiny_run(gradient_accumulation_steps=3))  # 6 rows, 2 at a time
    assert probe.tokens_per_s == pytest.approx(6 * 64 / (3 * probe.micro_step_s + probe.update_s))
    fewer = probed(tiny_run(rows_per_step=5))  # 5 rows, 2 at a time: a third micro-step that is not full
    assert fewer.tokens_per_s == pytest.approx(5 * 64 / (3 * fewer.micro_step_s + fewer.update_s))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_model_of_fewer_than_three_blocks_is_timed_as_it_is(num_layers):
    shape = {"size": "nano", "vocab_size": 512, "num_layers": num_layers}
    how = probed(tiny_run(model=shape)).how
    assert f"{num_layers - 1} and {num_layers} of {num_layers} blocks" in how


@pytest.mark.parametrize("preset", ["stream", "offload", "bf16_sr"])
@pytest.mark.parametrize("recompute", ["auto", "full"])
def test_every_preset_can_be_probed(preset, recompute):
    assert probed(tiny_run(recompute=recompute), preset=preset).tokens_per_s > 0


def test_selective_recompute_can_be_probed():
    assert probed(tiny_run(recompute="selective"), preset="offload").tokens_per_s > 0


def test_another_optimizer_is_said_to_have_been_timed_as_adamw():
    assert "AdamW in place of muon" in probed(tiny_run(optimizer="muon")).how


def test_blocks_are_never_compiled_on_a_cpu_and_that_is_said():
    attention_kernel.load()  # built once a machine, and no part of the probe
    how = probed(tiny_run(compile="on")).how
    assert "blocks not compiled" in how
    assert "blocks not compiled" not in probed(tiny_run()).how


def test_a_probe_draws_nothing_from_the_runs_random_numbers():
    torch.manual_seed(7)
    first = torch.rand(3)
    torch.manual_seed(7)
    probed(tiny_run())
    assert torch.equal(torch.rand(3), first)
