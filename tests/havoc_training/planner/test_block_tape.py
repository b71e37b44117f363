from __future__ import annotations

from dataclasses import replace

import pytest

from havoc_core.config import ModelConfig
from havoc_training.planner.block_tape import BlockTape, Tape, TapeShape

MODEL = ModelConfig(
    size="nano",
    d_model=1000,
    attention={"num_heads": 10, "num_kv_heads": 5, "head_dim": 32},
    mlp={"hidden_dim": 3000},
)
SHAPE = TapeShape(MODEL, tokens=1024, width=2, kernels="gpu", addition=lambda count: 0)


def test_a_tape_remembers_the_most_there_was_at_once():
    tape = Tape()
    tape.take("a", 3)
    tape.take("b", 4)
    tape.free("a")
    tape.take("c", 2)
    assert (tape.now, tape.peak) == (6, 7)
    tape.rewind()
    assert tape.peak == 6


def test_what_is_there_is_not_taken_twice_and_what_is_not_there_is_freed_for_nothing():
    tape = Tape()
    tape.take("a", 3)
    tape.take("a", 3)
    tape.free("b")
    assert tape.now == 3


def test_a_bfloat16_block_keeps_what_its_operations_need():
    """Norm inputs in float32, rotated heads, products, the gate's parts: counted by hand, in bytes a token."""
    norms = 2 * (4 * 1000 + 4 + 2 * 1000) + (4 * 320 + 4 * 10) + (4 * 160 + 4 * 5)
    attention = 2 * (320 + 160 + 160 + 320) + 4 * 10
    feed_forward = 2 * 4 * 3000
    assert BlockTape(SHAPE, recompute="none").measure().kept == 1024 * (norms + attention + feed_forward)


def test_full_recompute_keeps_the_input_alone():
    assert BlockTape(SHAPE, recompute="full").measure().kept == 1024 * 1000 * 2


def test_selective_recompute_keeps_input_products_and_attention():
    products = 2 * (1000 + 320 + 160 + 160 + 1000 + 3000 + 3000 + 1000)
    attention = 2 * 320 + 4 * 10
    assert BlockTape(SHAPE, recompute="selective").measure().kept == 1024 * (products + attention)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("kernels", ["gpu", "cpu"])
def test_all_is_freed_when_a_block_is_done_but_what_leaves_it(recompute, width, kernels):
    """The input's gradient leaves; the input, the gradient that came and a result that nobody asks for may still be held."""
    tape = BlockTape(replace(SHAPE, width=width, kernels=kernels), recompute=recompute)
    tape.measure()
    held = {"none": {"dx"}, "selective": {"dx", "x", "down"}, "full": {"dx", "x", "out", "g.held"}}[recompute]
    assert {"dx"} <= tape.left <= held


def test_a_cpu_keeps_more_for_a_norm_than_a_gpu():
    gpu, cpu = (BlockTape(replace(SHAPE, kernels=kernels), recompute="none").measure() for kernels in ("gpu", "cpu"))
    assert cpu.kept - gpu.kept == 1024 * 4 * (2 * 1000 + 320 + 160)


def test_dropout_keeps_a_byte_a_value_on_a_gpu():
    with_dropout = replace(SHAPE, model=MODEL.model_copy(update={"dropout": 0.1}))
    more = BlockTape(with_dropout, recompute="none").measure().kept - BlockTape(SHAPE, recompute="none").measure().kept
    assert more == 2 * 1024 * 1000


def test_bytes_beside_an_addition_count_where_they_are_most():
    much = replace(SHAPE, addition=lambda count: 100 * count)
    bare, more = (BlockTape(shape, recompute="none").measure() for shape in (SHAPE, much))
    assert more.backward - bare.backward > 50 * 3000 * 1000
    assert more.forward == bare.forward
