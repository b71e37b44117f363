"""The ledger against the memory that torch allocates, moment by moment, with tensors without contents."""

from __future__ import annotations

import functools
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from havoc_core.config import ModelConfig, TrainingConfig
from havoc_core.models.havoc import build
from havoc_training.memory.flat_optimizer import FlatOptimizer
from havoc_training.memory.presets import MemoryPlan, plan_memory
from havoc_training.planner import ledger as ledger_module
from havoc_training.planner.ledger import memory_ledger
from havoc_training.planner.trace import ACCELERATOR, PeakLog, memtracker_peak, registered_bytes, trace_peaks

TOLERANCE = 0.005
"""Of the peak: what issue 4 asks of the ledger."""


def model_of(d=1000, hidden=3000, heads=(10, 5, 32), vocab=512, layers=2, **more) -> ModelConfig:
    attention = {"num_heads": heads[0], "num_kv_heads": heads[1], "head_dim": heads[2], **more.pop("attention", {})}
    return ModelConfig(
        size="nano",
        d_model=d,
        num_layers=layers,
        vocab_size=vocab,
        attention=attention,
        mlp={"hidden_dim": hidden},
        **more,
    )


def plan_of(preset="fp32_master", recompute="none", working="bfloat16", **options) -> MemoryPlan:
    return plan_memory(TrainingConfig(recompute=recompute, memory_options=options), preset=preset, working=working)


GRID = {
    "plain": (model_of(), plan_of(), 1, 1024, "gpu"),
    "full recompute, five blocks": (model_of(layers=5), plan_of(recompute="full"), 2, 512, "gpu"),
    "selective recompute": (model_of(), plan_of(recompute="selective"), 4, 256, "gpu"),
    "streamed, sums rounded": (model_of(layers=3, vocab=8192), plan_of("stream", "full"), 4, 512, "gpu"),
    "tied head, no masters": (model_of(vocab=20000, tie_embeddings=True), plan_of("bf16_sr"), 1, 256, "gpu"),
    "float32": (model_of(hidden=2500), plan_of(working="float32"), 1, 512, "gpu"),
    "on a CPU": (model_of(), plan_of(), 1, 1024, "cpu"),
}
SLOW_GRID = {
    "codes of 8 bits": (model_of(vocab=30000), plan_of("8bit"), 2, 512, "gpu"),
    "sums on the host": (
        model_of(vocab=8192), plan_of("stream", "full", gradients_on="host", gradients="float32"), 4, 512, "gpu"
    ),
    "rounded sums on the host": (model_of(vocab=8192), plan_of("stream", "full", gradients_on="host"), 4, 512, "gpu"),
    "inputs on the host": (model_of(layers=5), plan_of(recompute="full", offload_activations=True), 2, 1024, "gpu"),
    "attention wider than the rest": (model_of(512, 512, (16, 16, 128)), plan_of(), 2, 512, "gpu"),
    "the same on a CPU": (model_of(512, 512, (16, 4, 128)), plan_of(recompute="full"), 2, 512, "cpu"),
    "narrow feed-forward": (model_of(1024, 256), plan_of("offload"), 2, 512, "gpu"),
    "narrow feed-forward on a CPU": (model_of(1024, 256), plan_of(recompute="selective"), 2, 512, "cpu"),
    "half-rotated heads": (
        model_of(attention={"qk_norm": False, "rotary_dim": 16}), plan_of("fp32_master_bf16m"), 2, 512, "gpu"
    ),
    "float32 on a CPU, tied": (
        model_of(tie_embeddings=True, vocab=9000), plan_of(recompute="selective", working="float32"), 1, 448, "cpu"
    ),
    "float32 recomputed": (model_of(), plan_of(recompute="full", working="float32"), 1, 1024, "gpu"),
    "dropout": (model_of(dropout=0.1), plan_of(), 1, 1024, "gpu"),
    "one block": (model_of(layers=1), plan_of(recompute="selective"), 1, 1024, "gpu"),
    "many words, few tokens": (model_of(256, 512, (4, 4, 64), vocab=65536), plan_of(), 1, 192, "gpu"),
}  # fmt: skip


def agrees(predicted: int, traced: int) -> bool:
    return abs(predicted - traced) <= TOLERANCE * traced


@functools.cache
def traced_once(model, plan, rows, length, kernels):
    """What is traced does not depend on the ledger, right or wrong, that it is held against."""
    return trace_peaks(model, plan, rows=rows, length=length, kernels=kernels)


def check(model, plan, rows, length, kernels, *, ledger_of=memory_ledger):
    traced = traced_once(model, plan, rows, length, kernels)
    ledger = ledger_of(model, plan, rows=rows, length=length, kernels=kernels)
    phases = {phase.name: phase for phase in ledger.phases}
    assert set(phases) == set(traced.phases)
    for name, size in traced.phases.items():
        assert agrees(phases[name].bytes, size), f"{name}: {phases[name].bytes} in the ledger, {size} traced"
        # Of what is computed alone, too: in a small model the states would hide it.
        computed = phases[name].bytes - sum(traced.registered.values())
        assert abs(computed - traced.compute[name]) <= 0.01 * traced.compute[name], name
    assert agrees(ledger.peak_bytes, traced.peak_bytes)
    if plan.offload_activations:
        ledger = replace(ledger, host={k: v for k, v in ledger.host.items() if k != "saved activations"})
    assert ledger.host_bytes == sum(traced.host.values())


@pytest.mark.parametrize("point", GRID)
def test_the_ledger_is_what_torch_allocates(point):
    check(*GRID[point])


@pytest.mark.slow
@pytest.mark.parametrize("point", SLOW_GRID)
def test_the_ledger_is_what_torch_allocates_elsewhere_too(point):
    check(*SLOW_GRID[point])


@pytest.mark.slow
def test_the_ledger_of_the_7b_model_is_what_torch_allocates():
    """32 layers, extrapolated from two and three; one row, which takes seconds."""
    check(ModelConfig(), plan_of("fp32_master", "full"), 1, 1024, "gpu")


@pytest.mark.parametrize("recompute", ["none", "selective"])
def test_the_count_of_live_tensors_is_that_of_memtracker(recompute):
    """Not with full recompute: there MemTracker's hooks keep the first run of a block alive, which nothing else does."""
    model, plan = model_of(256, 512, (4, 2, 32), vocab=1024), plan_of(recompute=recompute)
    traced = trace_peaks(model, plan, rows=1, length=512)
    compute = [size for name, size in traced.compute.items() if name != "optimizer"]
    assert max(compute) == memtracker_peak(model, plan, rows=1, length=512)


def test_phases_grow_linearly_with_the_blocks():
    plan = plan_of(recompute="selective")
    small = {"d": 128, "hidden": 256, "heads": (4, 2, 32)}
    two, three, five = (trace_peaks(model_of(layers=n, **small), plan, rows=1, length=64) for n in (2, 3, 5))
    assert five.compute == {
        name: two.compute[name] + 3 * (three.compute[name] - two.compute[name]) for name in two.compute
    }


@pytest.mark.parametrize("preset", ["fp32_master", "fp32_master_bf16m", "8bit", "bf16_sr"])
def test_what_is_registered_is_what_the_optimizer_allocates(preset):
    """The arenas of the real optimizer, on a fake device; parts of an arena begin at multiples of 256 values."""
    model, plan = model_of(256, 512, (4, 2, 32), vocab=1024, layers=3), plan_of(preset, "full")
    log = PeakLog(ACCELERATOR)
    with FakeTensorMode():
        built = build(model)
        weights = {name: torch.empty(p.shape) for name, p in built.named_parameters()}
        with log:
            optimizer = FlatOptimizer(built, weights, TrainingConfig(), plan, ACCELERATOR)
            allocated = log.now
    assert optimizer.plan == plan
    assert allocated == pytest.approx(sum(registered_bytes(model, plan)[0].values()), rel=TOLERANCE)


MUTATIONS = {
    "the second moment": (
        'states["first moment"] = states["second moment"] = int(',
        'states["first moment"] = int(',
        "plain",
    ),
    "the remainder": ("int(plan.master_bytes * count)", "0", "plain"),
    "the sums of gradients": ('["gradient sums"] = int(plan.gradient_bytes * count)', '["gradient sums"] = 0', "plain"),
    "the slots": ("slots = min(2, model.num_layers)", "slots = 0 * min(2, model.num_layers)", "streamed, sums rounded"),
    "the inputs of recomputed blocks": ("self._block.kept * inputs", "0 * inputs", "full recompute, five blocks"),
    "the block at work": ('"block at work": self._block.backward', '"block at work": 0', "plain"),
    "the head's gradient": ('"head gradient": head,', '"head gradient": 0,', "tied head, no masters"),
    "the logits": ('"logits of a chunk": logits,', '"logits of a chunk": 0,', "tied head, no masters"),
    "what an update works with": ("int(piece * _scratch_bytes(plan))", "0", "streamed, sums rounded"),
}
"""What is forgotten -> (line of the ledger's source, the line without it, a point of the grid)."""


@pytest.mark.parametrize("forgotten", MUTATIONS)
def test_a_line_that_the_ledger_forgets_is_found(forgotten, tmp_path):
    """The mutation check: the ledger's own source, altered, must no longer agree with what torch allocates."""
    old, new, point = MUTATIONS[forgotten]
    source = Path(ledger_module.__file__).read_text(encoding="utf-8")
    assert source.count(old) == 1
    (tmp_path / "forgetful_ledger.py").write_text(source.replace(old, new), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("forgetful_ledger", tmp_path / "forgetful_ledger.py")
    forgetful = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = forgetful  # where dataclasses look for their module
    try:
        spec.loader.exec_module(forgetful)
        with pytest.raises(AssertionError):
            check(*GRID[point], ledger_of=forgetful.memory_ledger)
    finally:
        del sys.modules[spec.name]
