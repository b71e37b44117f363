from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_core.config import ModelConfig, TrainingConfig
from havoc_core.costs import num_parameters
from havoc_training.memory.presets import MemoryPlan, plan_memory
from havoc_training.planner.ledger import Ledger, Phase, checkpoint_bytes, memory_ledger

HAVOC_7B = ModelConfig()
PRESETS = ("fp32_master", "fp32_master_bf16m", "offload", "stream", "8bit", "bf16_sr")


def plan_of(preset: str, recompute: str = "full", **options: object) -> MemoryPlan:
    config = TrainingConfig(recompute=recompute, memory_options=options)
    return plan_memory(config, preset=preset, working="bfloat16")


GOLDEN = {
    ("fp32_master", "none"): (140_034_473_984, 217_057_918_976, 0),
    ("fp32_master", "full"): (115_568_050_176, 120_958_615_552, 0),
    ("fp32_master_bf16m", "none"): (111_982_968_832, 189_006_413_824, 0),
    ("fp32_master_bf16m", "full"): (87_516_545_024, 92_907_110_400, 0),
    ("offload", "none"): (70_056_706_048, 147_080_151_040, 70_128_762_880),
    ("offload", "full"): (45_590_282_240, 50_980_847_616, 70_128_762_880),
    ("stream", "full"): (19_422_087_168, 24_812_652_544, 83_080_773_632),
    ("8bit", "none"): (70_124_863_488, 147_148_308_480, 0),
    ("8bit", "full"): (45_658_439_680, 51_049_005_056, 0),
    ("bf16_sr", "none"): (83_931_463_680, 160_954_908_672, 0),
    ("bf16_sr", "full"): (59_465_039_872, 64_855_605_248, 0),
}
"""(preset, recompute) -> bytes on the device at 2 x 2048 and at 8 x 2048, on the host. Blocks as they run without compile."""


@pytest.mark.parametrize(("preset", "recompute"), GOLDEN)
def test_the_7b_model_needs_what_it_needed(preset, recompute):
    plan = plan_of(preset, recompute)
    two, eight = (memory_ledger(HAVOC_7B, plan, rows=rows, length=2048) for rows in (2, 8))
    assert (two.peak_bytes, eight.peak_bytes, two.host_bytes) == GOLDEN[preset, recompute]


def test_states_of_the_7b_model_follow_from_its_number_of_parameters():
    """7.01 B: weights 2, remainder 2, moments 8, sum 4 bytes a matrix value; 16 bytes for each of 274,432 values of norms."""
    assert num_parameters(HAVOC_7B) == 7_013_150_720
    vectors = 32 * (2 * 4096 + 2 * 128) + 4096
    matrices = 7_013_150_720 - vectors
    parts = memory_ledger(HAVOC_7B, plan_of("fp32_master"), rows=1, length=64).phases[0].parts
    assert parts["vectors (norms)"] == 16 * vectors
    states = ("weights", "master remainder", "first moment", "second moment", "gradient sums")
    assert [parts[name] for name in states] == [b * matrices for b in (2, 2, 4, 4, 4)]


def test_streamed_states_lie_on_the_host():
    """12 bytes a matrix value but for the weights of embedding and head, which stay on the device."""
    matrices, outside = 7_012_876_288, 2 * 65536 * 4096
    host = memory_ledger(HAVOC_7B, plan_of("stream"), rows=2, length=2048).host
    assert host == {
        "weights": 2 * (matrices - outside),
        "master remainder": 2 * matrices,
        "first moment": 4 * matrices,
        "second moment": 4 * matrices,
    }


def test_two_slots_and_three_pieces_are_on_the_device_when_blocks_are_streamed():
    block = 2 * 4096 * 128 * (32 + 8) + 3 * 4096 * 13056
    parts = memory_ledger(HAVOC_7B, plan_of("stream"), rows=2, length=2048).peak.parts
    assert parts["stream buffers"] == 2 * (2 * block + 4 * (2 * 4096 + 2 * 128)) + 3 * 4_194_304 * 12


def test_sums_on_the_host_leave_the_device():
    near, far = (
        memory_ledger(HAVOC_7B, plan_of("stream", gradients_on=place), rows=2, length=2048)
        for place in ("device", "host")
    )
    assert "gradient sums" in near.peak.parts and "gradient sums" not in far.peak.parts
    assert far.host["gradient sums"] == near.peak.parts["gradient sums"]
    assert far.peak_bytes < near.peak_bytes


def test_offloaded_inputs_are_on_the_host_but_for_two():
    kept = plan_of("fp32_master")
    inputs = 31 * 4096 * 4096 * 2
    near = memory_ledger(HAVOC_7B, kept, rows=2, length=2048)
    far = memory_ledger(HAVOC_7B, replace(kept, offload_activations=True), rows=2, length=2048)
    assert far.host["saved activations"] == inputs
    last = "backward of the last block"
    assert (
        _phase(near, last).parts["saved activations"] - _phase(far, last).parts["saved activations"]
        == inputs - 33554432
    )


def _phase(ledger: Ledger, name: str) -> Phase:
    return next(phase for phase in ledger.phases if phase.name == name)


def test_the_peak_is_the_largest_phase():
    ledger = Ledger((Phase("a", {"x": 1}), Phase("b", {"x": 2, "y": 3}), Phase("c", {"x": 4})), {"h": 7, "i": 1})
    assert (ledger.peak.name, ledger.peak_bytes, ledger.host_bytes) == ("b", 5, 8)


SMALL = st.builds(
    lambda width, heads, hidden, layers, tied: ModelConfig(
        size="nano",
        d_model=64 * width,
        num_layers=layers,
        tie_embeddings=tied,
        attention={"num_heads": 2 * heads, "num_kv_heads": heads, "head_dim": 32},
        mlp={"hidden_dim": 64 * hidden},
    ),
    st.integers(1, 8),
    st.integers(1, 4),
    st.integers(1, 16),
    st.integers(1, 6),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(SMALL, st.sampled_from(PRESETS), st.sampled_from(["none", "selective", "full"]), st.integers(1, 8))
def test_more_rows_and_more_blocks_never_need_less(model, preset, recompute, rows):
    plan = plan_of(preset, "full" if preset == "stream" else recompute)
    here = memory_ledger(model, plan, rows=rows, length=128)
    deeper = model.model_copy(update={"num_layers": model.num_layers + 1})
    assert here.peak_bytes < memory_ledger(model, plan, rows=rows + 1, length=128).peak_bytes
    # The slots of streamed blocks are two however many there are, and what is on the host grows.
    more = memory_ledger(deeper, plan, rows=rows, length=128)
    assert here.peak_bytes + here.host_bytes < more.peak_bytes + more.host_bytes
    assert here.peak_bytes <= more.peak_bytes


@settings(max_examples=30, deadline=None)
@given(SMALL, st.integers(1, 8))
def test_less_is_kept_the_more_is_computed_again(model, rows):
    kept = [
        memory_ledger(model, plan_of("fp32_master", recompute), rows=rows, length=128)
        .phases[1]
        .parts["saved activations"]
        for recompute in ("full", "selective", "none")
    ]
    assert kept == sorted(kept) and len(set(kept)) == 3


def test_all_parts_are_whole_and_positive():
    for preset in PRESETS:
        ledger = memory_ledger(HAVOC_7B, plan_of(preset), rows=2, length=2048)
        sizes = [size for phase in ledger.phases for size in phase.parts.values()] + list(ledger.host.values())
        assert all(isinstance(size, int) and size > 0 for size in sizes)


@pytest.mark.parametrize(
    ("preset", "bytes_a_value"),
    [("fp32_master", 14), ("fp32_master_bf16m", 10), ("offload", 14), ("stream", 14), ("8bit", 12), ("bf16_sr", 8)],
)
def test_a_checkpoint_holds_weights_masters_and_moments(preset, bytes_a_value):
    """Weights 2; master 4, or 2 where the weight is its own; moments 8 (codes are written as float32), or 4 in bfloat16."""
    assert checkpoint_bytes(HAVOC_7B, plan_of(preset)) == bytes_a_value * 7_012_876_288 + 16 * 274_432


def test_the_ledger_loads_no_torch():
    code = "import sys, havoc_training.planner.ledger; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
