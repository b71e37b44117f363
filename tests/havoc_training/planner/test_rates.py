"""Predicted speeds against published ones: within a quarter, which is all that a datasheet can promise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from havoc_core.config import TrainingConfig
from havoc_training.planner.choice import choose
from havoc_training.planner.machine import Machine, machine_of_card
from havoc_training.planner.rates import peak_share, predict_rate, probed_rate

QWEN_7B = {
    "vocab_size": 152064, "d_model": 3584, "num_layers": 28, "mlp": {"hidden_dim": 18944},
    "attention": {"num_heads": 28, "num_kv_heads": 4, "head_dim": 128, "qk_norm": False},
}  # fmt: skip
LLAMA_8B = {
    "vocab_size": 128256, "d_model": 4096, "num_layers": 32, "mlp": {"hidden_dim": 14336},
    "attention": {"num_heads": 32, "num_kv_heads": 8, "head_dim": 128, "qk_norm": False},
}  # fmt: skip


def rate(card, length, *, model, working="bfloat16", **values):
    """Of four rows a micro-batch and eight of them a step, unless the values say otherwise."""
    shape = {**model, "max_seq_len": max(length, 1024)} if isinstance(model, dict) else model
    batch = {"batch_size": 4, "gradient_accumulation_steps": 8}
    config = TrainingConfig.model_validate({"model": shape, "data": {"max_sequence_length": length}, **batch, **values})
    # Room for everything: speed is asked here, and programs that were measured place their bytes otherwise.
    machine = card if isinstance(card, Machine) else replace(machine_of_card(card), device_bytes=2**40)
    return predict_rate(config, choose(config, machine, working=working), machine)


@pytest.mark.parametrize(
    ("published", "card", "length", "values"),
    [
        (2523, "RTX 4090", 2048, {"model": QWEN_7B, "memory": "stream"}),
        (2777, "RTX 4090", 1024, {"model": QWEN_7B, "memory": "stream", "gradient_accumulation_steps": 32}),
        (889, "RTX 5060 Ti", 1024, {"model": QWEN_7B, "memory": "stream", "gradient_accumulation_steps": 32,
            "memory_options": {"moments": "bfloat16", "gradients_on": "host"}}),
        (10471, "H200", 4096, {"model": LLAMA_8B, "memory": "bf16_sr", "recompute": "full"}),
        (12000, "H200", 4096, {"model": LLAMA_8B, "memory": "bf16_sr", "recompute": "none", "batch_size": 1}),
        (13870, "H100", 1024, {"model": QWEN_7B, "memory": "bf16_sr", "recompute": "none", "batch_size": 1}),
        (59000, "H100", 1024, {"model": {**QWEN_7B, "d_model": 1536, "mlp": {"hidden_dim": 8960}, "attention": {
            "num_heads": 12, "num_kv_heads": 2, "head_dim": 128, "qk_norm": False}, "tie_embeddings": True}}),
    ],
    ids=["4090 DeepSpeed", "4090 LLM.Q", "5060 Ti LLM.Q", "H200 recomputed", "H200", "H100 LLM.Q", "H100 1.5 B"],
)  # fmt: skip
def test_published_speeds_are_hit_within_a_quarter(published, card, length, values):
    predicted = rate(card, length, **values)
    assert predicted.origin == "predicted"
    assert predicted.tokens_per_s == pytest.approx(published, rel=0.25)


def test_full_recompute_costs_a_third_of_the_blocks():
    none = rate("H200", 2048, model="1b", memory="fp32_master", recompute="none")
    full = rate("H200", 2048, model="1b", memory="fp32_master", recompute="full")
    assert 1.25 < none.tokens_per_s / full.tokens_per_s < 4 / 3


def test_a_small_micro_batch_waits_for_the_host_link_when_weights_are_streamed():
    small = rate("H200", 512, model=LLAMA_8B, memory="stream", batch_size=1, gradient_accumulation_steps=64)
    large = rate("H200", 512, model=LLAMA_8B, memory="stream", batch_size=64, gradient_accumulation_steps=1)
    assert (small.limited_by, large.limited_by) == ("host link", "compute")
    assert large.tokens_per_s > 3 * small.tokens_per_s


def test_offload_costs_less_the_more_tokens_a_step_has():
    few = rate("A100-40", 2048, model="1b", memory="offload", batch_size=2, gradient_accumulation_steps=1)
    many = rate("A100-40", 2048, model="1b", memory="offload", batch_size=2, gradient_accumulation_steps=64)
    resident = rate("A100-40", 2048, model="1b", memory="fp32_master", batch_size=2, gradient_accumulation_steps=64)
    assert few.tokens_per_s < many.tokens_per_s < resident.tokens_per_s
    assert many.tokens_per_s > 0.9 * resident.tokens_per_s


def test_a_tiny_model_is_limited_by_latency_and_not_said_to_run_at_the_peak():
    tiny = rate("H200", 128, model="nano", memory="fp32_master", batch_size=1, gradient_accumulation_steps=1)
    assert tiny.limited_by == "latency"


def test_8_bit_products_are_faster():
    assert rate("H200", 2048, model="1b", fp8=True).tokens_per_s > 1.2 * rate("H200", 2048, model="1b").tokens_per_s


def test_nothing_is_predicted_for_a_device_of_which_nothing_is_known():
    unknown = Machine("something", "cuda", 80 * 2**30, None)
    assert rate(unknown, 1024, model="1b") is None
    assert rate("T4", 1024, model="100m") is None, "it has no bfloat16 units"
    assert rate("T4", 1024, model="100m", working="float16", memory="fp32_master") is not None
    assert rate(Machine("CPU", "cpu", 2**34, 2**34), 1024, model="nano", working="float32") is None


def test_a_probe_is_no_prediction_and_an_unknown_device_has_no_share_of_a_peak():
    config = TrainingConfig()
    measured = probed_rate(12000.0)
    assert (measured.origin, measured.limited_by) == ("probe", None)
    assert peak_share(config, measured, None, working="bfloat16") is None
    share = peak_share(config, measured, machine_of_card("H200").card, working="bfloat16")
    assert share == pytest.approx(12000 * 42.08e9 / 989.4e12, rel=1e-3)
    assert peak_share(config, measured, machine_of_card("H200").card, working="bfloat16", world_size=2) == share / 2
