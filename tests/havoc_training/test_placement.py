"""Precision and compilation."""

from __future__ import annotations

import pytest
import torch

from havoc_core.config import TrainingConfig
from havoc_core.model import first_weights
from havoc_core.models import havoc
from havoc_training.memory.flat_optimizer import FlatOptimizer
from havoc_training.memory.presets import plan_memory
from havoc_training.optimizer import WholeOptimizer
from havoc_training.placement import Compilation, choose_compilation, has_cpp_compiler, place

CPU = torch.device("cpu")
SMALL = {
    "size": "nano", "vocab_size": 512, "d_model": 16, "num_layers": 2, "max_seq_len": 32,
    "attention": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 8}, "mlp": {"hidden_dim": 24},
}  # fmt: skip


@pytest.mark.parametrize(
    ("optimizer", "working", "preset", "kind"),
    [
        ("adamw", "bfloat16", "fp32_master", FlatOptimizer),
        ("adamw", "bfloat16", "stream", FlatOptimizer),
        ("adamw", "float32", "fp32_master", FlatOptimizer),
        ("adamw", "float16", "fp32_master", WholeOptimizer),
        ("muon", "bfloat16", "fp32_master", WholeOptimizer),
        ("muon", "float32", "fp32_master", WholeOptimizer),
    ],
)
def test_adamw_lies_in_arenas_and_what_needs_whole_tensors_has_them(optimizer, working, preset, kind):
    config = TrainingConfig.model_validate(
        {"model": SMALL, "data": {"max_sequence_length": 32}, "optimizer": optimizer}
    )
    model = havoc.build(config.model)
    names, weights = [name for name, _ in model.named_parameters()], first_weights(model, seed=3)
    memory = plan_memory(config, preset=preset, working=working)
    compilation = Compilation(blocks=False, cpu_attention=False)
    updater = place(model, weights, config=config, memory=memory, device=CPU, compilation=compilation)
    assert type(updater) is kind
    assert updater.leaves_out is (kind is FlatOptimizer)
    assert [name for name, _ in model.named_parameters()] == names
    dtype = getattr(torch, working)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (dtype if parameter.dim() > 1 else torch.float32)
        # Half of the last bit of bfloat16, 2**-9 of the value.
        torch.testing.assert_close(parameter.detach().float(), weights[name], rtol=2.0**-8, atol=1e-7)
    model(torch.zeros(1, 8, dtype=torch.long))


@pytest.mark.parametrize("total_flops", [1.0, 1e20])
def test_off_compiles_nothing(total_flops):
    made = choose_compilation("off", device=CPU, total_flops=total_flops)
    assert (made.blocks, made.cpu_attention) == (False, False)


def test_on_compiles_even_a_short_run():
    assert choose_compilation("on", device=CPU, total_flops=1.0).blocks


def test_auto_compiles_where_the_run_repays_it():
    # By the operations of the run alone: the same settings compile the same, on a fast day and on a slow one.
    assert not choose_compilation("auto", device=CPU, total_flops=2.9e13).blocks
    assert choose_compilation("auto", device=CPU, total_flops=3.0e13).blocks is has_cpp_compiler()
    assert choose_compilation("auto", device=torch.device("cuda"), total_flops=1.0).blocks
    assert not choose_compilation("auto", device=torch.device("mps"), total_flops=1e20).blocks
    assert not choose_compilation("auto", device=torch.device("cuda"), total_flops=1.0).cpu_attention
